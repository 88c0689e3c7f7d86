"""The store under the ``Trainer`` of Transformers and those of TRL.

``PitstopCallback`` saves wherever the trainer would have saved, instead of it: what the trainer writes itself are pickles. The
trainer's state, the optimizer, the scheduler and the random state go into the checkpoint as safetensors and JSON, and
``resume_from`` gives the trainer what it reads itself (weights and ``trainer_state.json``); the rest the callback puts back when
training begins. See docs/guides/callbacks.md for what is exact.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from pitstop.checkpointing.callbacks.saving import CallbackSaver, log, numbers, refuse_several_processes
from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import TEMPORARY_PREFIX
from pitstop.checkpointing.manager import CheckpointManager
from pitstop.checkpointing.state import training_state, weights
from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError, RunError, SettingsError

_STATE = "trainer_state"
_SUMMARY = "train_runtime"  # only the line that a trainer logs after its last step has it
_RESUMING = f"{TEMPORARY_PREFIX}resume-"
_TIMES = ("_runtime", "_per_second")


class PitstopCallback(TrainerCallback):
    """Checkpoints of ``Trainer`` in a run of Pitstop: committed, verified, locked and pruned as those of ``pitstop train``.

    Args:
        manager: a ``CheckpointManager``, or the directory of the runs, with ``experiment_name`` and ``run_number`` for one.
        keep_last_n: checkpoints to keep beside the best one; None: the trainer's ``save_total_limit``.
        save_base_model: save what is frozen in the model too, once for all runs that share it.
        replace: save instead of the trainer. If false it saves its own checkpoints as well.

    The trainer's ``save_strategy``, ``save_steps``, ``metric_for_best_model``, ``greater_is_better`` and ``load_best_model_at_end``
    mean what they always mean. ``SettingsError`` for arguments that cannot be used, ``RunError`` where a run with checkpoints would be
    begun from the start.
    """

    def __init__(
        self,
        manager: CheckpointManager | Path | str = "checkpoints",
        experiment_name: str | None = None,
        run_number: int | None = None,
        *,
        keep_last_n: int | None = None,
        save_base_model: bool = False,
        replace: bool = True,
    ) -> None:
        has_manager = isinstance(manager, CheckpointManager)
        if has_manager and (experiment_name is not None or run_number is not None):
            raise SettingsError("experiment_name and run_number are the manager's own", hint="give them to CheckpointManager")
        self.manager: CheckpointManager = manager if has_manager else CheckpointManager(manager, experiment_name, run_number)  # type: ignore[arg-type,assignment]
        self.replace, self.save_base_model = replace, save_base_model
        self._judged_by_trainer = not has_manager
        self._saver = CallbackSaver(self.manager, keep_last_n)
        self._pending = False
        self._metrics: dict[str, float] = {}
        self._resumed: training_state.Saved | None = None
        self._random_state_due = False
        self._saved_step: int | None = None
        self._trainer: Any = lambda: None
        self._directory: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Put back what the trainer does not, or make sure that nothing is lost by starting at step 0."""
        refuse_several_processes(args.world_size, "PitstopCallback")
        if self._saver.keep_last_n is None:
            self._saver.keep_last_n = args.save_total_limit
        if self._judged_by_trainer:
            metric = args.metric_for_best_model or "loss"
            monitor = metric if metric.startswith("eval_") else f"eval_{metric}"
            self.manager.set_monitor(monitor, "max" if args.greater_is_better else "min")
        self._pending, self._metrics = False, {}
        if self._resumed is not None:
            self._put_back(self._resumed, state, objects)
        elif not (checkpoints := self.manager.list_checkpoints()):
            self.manager.begin_log_anew(state.global_step)
        elif state.global_step <= checkpoints[-1]["step"]:
            raise RunError(
                f"{self.manager.run.label} has checkpoints up to step {checkpoints[-1]['step']}, and this training begins at step {state.global_step}",
                hint="trainer.train(resume_from_checkpoint=resume_from(trainer)) goes on from them; without run_number it is a new run",
            )
        if self.save_base_model:
            self.manager.save_base_model(objects["model"])
        self.manager.note_progress(total_steps=state.max_steps, total_epochs=state.num_train_epochs)

    def _put_back(self, saved: training_state.Saved, state: Any, objects: Mapping[str, Any]) -> None:
        if state.global_step != saved.info.step:
            raise CheckpointError(
                f"training begins at step {state.global_step}, and {saved.info.name} is of step {saved.info.step}",
                hint="give trainer.train() exactly what resume_from(trainer) returns",
            )
        model = weights.unwrapped(objects["model"])
        weights.load(model, saved.info.path, saved.weights)
        training_state.restore_optimizers(objects["optimizer"], saved, model)
        training_state.restore_schedulers(objects["lr_scheduler"], saved)
        scaler = getattr(objects["optimizer"], "scaler", None)
        if scaler is not None and saved.scaler is not None:
            scaler.load_state_dict(saved.scaler)
        self._random_state_due, self._saved_step = True, saved.info.step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """The first moment after the last step of an epoch, and the one at which the trainer would restore the random state."""
        self._flush(args, state, control, objects)
        if self._random_state_due and (args.ignore_data_skip or float(state.epoch or 0.0).is_integer()):
            self._restore_random_state()

    def on_step_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """The first moment after a step at which all of it is over: logging, evaluation, the judgement of the best."""
        self._flush(args, state, control, objects)
        if self._random_state_due:  # in the middle of an epoch: the batches that were trained on have been passed over by now
            self._restore_random_state()

    def _restore_random_state(self) -> None:
        assert self._resumed is not None
        training_state.restore_random_state(self._resumed)
        self._random_state_due = False

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> Any:
        """Take over a save that the trainer is about to make."""
        return self._take_over(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **objects: Any) -> Any:
        """The same at the end of an epoch, after the save of its last step."""
        self._flush(args, state, control, objects)
        return self._take_over(control)

    def _take_over(self, control: Any) -> Any:
        if self.replace and control.should_save:
            self._pending, control.should_save = True, False
        return control

    def on_save(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """The trainer has saved itself: by ``replace=False``, ``save_strategy="best"`` or another callback."""
        self._pending = True
        self._flush(args, state, control, objects)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **objects: Any) -> None:
        """Keep what is logged: in ``metrics.jsonl``, and the training loss for the next checkpoint."""
        values = numbers(logs or {})
        if _SUMMARY in values or not state.is_world_process_zero:
            return
        if "loss" in values:
            self._metrics["train_loss"] = values["loss"]
        values.pop("epoch", None)
        self._saver.log_metrics(state.global_step, values, state.epoch)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **objects: Any) -> None:
        """Keep the metrics of this step for its checkpoint."""
        self._metrics |= {name: value for name, value in numbers(metrics or {}).items() if not name.endswith(_TIMES)}

    def _flush(self, args: Any, state: Any, control: Any, objects: Mapping[str, Any], *, final: bool = False) -> None:
        """Save what is pending, of the step that has just ended."""
        if not self._pending:
            return
        self._pending = False
        metrics, self._metrics = self._metrics, {}
        if state.global_step == self._saved_step:
            return
        name = layout.step_name(state.global_step)
        extra = {_STATE: self._trainer_state(state, control)}
        model, epoch, step = objects["model"], float(state.epoch or 0.0), state.global_step
        optimizer, scheduler = objects["optimizer"], objects["lr_scheduler"]
        scaler = getattr(optimizer, "scaler", None)

        def write() -> Path:
            return self.manager.save_lora_weights(
                model, epoch, optimizer, scheduler, metrics, step=step, name=name, scaler=scaler, extra=extra
            )

        if self._saver.save(write, name, final=final):
            self._saved_step = state.global_step

    def _trainer_state(self, state: Any, control: Any) -> dict[str, Any]:
        content = dataclasses.asdict(state)
        content["log_history"] = [row for row in content["log_history"] if _SUMMARY not in row]
        stateful: dict[str, Any] = dict(content["stateful_callbacks"])
        stateful[type(control).__name__] = control.state()
        trainer = self._trainer()
        for callback in trainer.callback_handler.callbacks if trainer is not None else []:
            if isinstance(callback, ExportableState):
                stateful[type(callback).__name__] = callback.state()
        content["stateful_callbacks"] = stateful
        return content

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """The last save, the best weights if the trainer was told to load them, and the run's last word."""
        self._flush(args, state, control, objects, final=True)
        self._forget_directory()
        self._resumed = None
        if args.load_best_model_at_end and self.replace:
            self._load_best(objects["model"])
        self.manager.finish("completed" if state.global_step >= state.max_steps else "stopped")

    def _load_best(self, model: Any) -> None:
        best = self.manager.get_best_checkpoint_info()
        if best is None:
            log.warning("no checkpoint has a metric to go by: the weights of the last step stay")
            return
        saved = training_state.read(self.manager.run.store.verify(best["name"]))
        weights.load(weights.unwrapped(model), saved.info.path, saved.weights)
        log.info("loaded the best weights, of %s", best["name"])

    def resume_from(self, trainer: Any, checkpoint: str | None = None) -> str | None:
        """See the function ``resume_from``."""
        self._trainer = weakref.ref(trainer)
        saved = self.manager.take_up(checkpoint)
        if saved is None:
            return None
        content = saved.extra.get(_STATE) if isinstance(saved.extra, dict) else None
        if not isinstance(content, dict) or content.get("global_step") != saved.info.step:
            raise CheckpointError(f"{saved.info.path} was not saved by PitstopCallback", hint="use CheckpointManager.restore()")
        self._resumed = saved
        self._forget_directory()
        for leftover in self.manager.run_dir.glob(f"{_RESUMING}*"):  # of a process that was killed; the lock says it is gone
            shutil.rmtree(leftover, ignore_errors=True)
        self._directory = _ResumeDirectory(self.manager.run_dir)
        self._directory.fill(saved, content)
        log.info("going on from %s (step %d)", saved.info.name, saved.info.step)
        return str(self._directory.path)

    def _forget_directory(self) -> None:
        if self._directory is not None:
            self._directory.remove()
            self._directory = None


class _ResumeDirectory:
    """What a trainer reads itself at a resume, for as long as it trains; it holds no pickle and goes at the end of the process."""

    def __init__(self, run_dir: Path) -> None:
        # In the run, so that the weights are links; the prefix is that of leftovers, which prune removes after a crash too.
        self.path = Path(tempfile.mkdtemp(prefix=_RESUMING, dir=run_dir))
        self.remove = weakref.finalize(self, shutil.rmtree, str(self.path), ignore_errors=True)

    def fill(self, saved: training_state.Saved, content: Mapping[str, Any]) -> None:
        for name in (layout.ADAPTER_WEIGHTS, layout.ADAPTER_CONFIG, file_sets.WEIGHTS, file_sets.MODEL_CONFIG):
            if name in saved.info.manifest.files:
                try:
                    (self.path / name).hardlink_to(saved.info.path / name)
                except OSError:  # a filesystem without links
                    shutil.copyfile(saved.info.path / name, self.path / name)
        (self.path / "trainer_state.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def resume_from(trainer: Any, checkpoint: str | None = None) -> str | None:
    """What ``trainer.train(resume_from_checkpoint=…)`` goes on from: the newest valid checkpoint of the callback's run.

    Every byte is verified first; damaged checkpoints are set aside and the one before is taken. ``checkpoint`` names another one
    (``checkpoint-100``, ``best``). None, with which training starts at the beginning, where the run has no checkpoint yet.

    Raises:
        SettingsError: the trainer has no ``PitstopCallback``.
        CheckpointError: no checkpoint is valid, or the one asked for is not.
        RunError: another process writes the run.
    """
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, PitstopCallback):
            return callback.resume_from(trainer, checkpoint)
    raise SettingsError(
        "the trainer has no PitstopCallback", hint="Trainer(…, callbacks=[PitstopCallback('checkpoints', 'experiment')])"
    )
