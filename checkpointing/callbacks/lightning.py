"""The store under Lightning's ``Trainer``: ``DistributedCheckpointCallback`` saves, ``ResumeFromCheckpointCallback`` goes on exactly.

A checkpoint is of the end of an epoch and is taken at the first moment at which all of that epoch is over: schedulers that step
by the epoch do so after Lightning's hook ``on_train_epoch_end``. What Lightning keeps beside the model (the progress of its loops, the
states of other callbacks, the precision plugin, the data module) goes into the checkpoint as JSON and safetensors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.callbacks.saving import CallbackSaver, log, numbers, refuse_several_processes
from pitstop.checkpointing.manager import CheckpointManager
from pitstop.checkpointing.state import training_state, weights
from pitstop.configs.errors import CheckpointError, RunError, SettingsError

# The library has two names; the classes of one are not those of the other, so the one in use is taken.
if "lightning.pytorch" in sys.modules and "pytorch_lightning" not in sys.modules:
    from lightning.pytorch.callbacks import Callback, Checkpoint
else:
    try:
        from pytorch_lightning.callbacks import Callback, Checkpoint
    except ModuleNotFoundError:
        from lightning.pytorch.callbacks import Callback, Checkpoint

_EXTRA = "lightning"
_KEYS = {"epochs", "loops", "batches", "callbacks", "precision", "datamodule", "module"}


class DistributedCheckpointCallback(Checkpoint):
    """Saves the base once and what trains at the end of epochs, in the run of ``checkpoint_manager``.

    Args:
        checkpoint_manager: the run. Its ``save_lora_weights`` is what saves, so that a subclass may do more there.
        monitor: the logged metric that decides which checkpoint is best; None: what the manager says.
        mode: ``min`` or ``max``; None: what the manager says.
        save_every_n_epochs: save after every so many epochs; the last one is saved in any case.
        keep_last_n: checkpoints to keep beside the best one; None keeps all.
        save_base_model: save what is frozen in the module before training, once for all runs that share it.

    ``SettingsError`` for arguments that cannot be used and for trainings of several processes, ``RunError`` where a run with checkpoints
    would be begun from the start. A full disk costs a checkpoint; after three misses in a row ``ResourceError`` ends the training.
    """

    def __init__(
        self,
        checkpoint_manager: CheckpointManager,
        monitor: str | None = None,
        mode: str | None = None,
        save_every_n_epochs: int = 1,
        keep_last_n: int | None = 5,
        save_base_model: bool = True,
    ) -> None:
        super().__init__()
        if type(save_every_n_epochs) is not int or save_every_n_epochs < 1:
            raise SettingsError(f"save_every_n_epochs is {save_every_n_epochs!r}; it counts epochs")
        self.manager = checkpoint_manager
        self.manager.set_monitor(monitor, mode)
        self.save_every_n_epochs, self.save_base_model = save_every_n_epochs, save_base_model
        self._saver = CallbackSaver(checkpoint_manager, keep_last_n)
        self._metrics: dict[str, float] = {}
        self._ended = 0  # the epoch that ended last, counted from 1
        self._saved = 0

    def model_of(self, pl_module: Any) -> torch.nn.Module:
        """What is saved. A subclass may give a part of the module, a ``PeftModel`` in it say; both callbacks must agree."""
        return pl_module

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Save the base; make sure that nothing is lost by starting at the first epoch."""
        refuse_several_processes(trainer.world_size, "DistributedCheckpointCallback")
        checkpoints = self.manager.list_checkpoints()
        if checkpoints and trainer.current_epoch < checkpoints[-1]["epoch"] and self.manager.going_on_from is None:
            raise RunError(
                f"{self.manager.run.label} has checkpoints up to epoch {checkpoints[-1]['epoch']}, and this training begins at {trainer.current_epoch}",
                hint="add ResumeFromCheckpointCallback(checkpoint_manager) to go on from them; without run_number it is a new run",
            )
        if not checkpoints:
            self.manager.begin_log_anew(trainer.global_step)
        self._saved = trainer.current_epoch
        self._metrics, self._ended = {}, 0
        model = self.model_of(pl_module)
        if self.save_base_model and any(not parameter.requires_grad for parameter in model.parameters()):
            self.manager.save_base_model(model)
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self.manager.note_progress(total_steps=total, total_epochs=trainer.max_epochs)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the epoch's metrics: what is monitored has been logged by now."""
        self._ended = trainer.current_epoch + 1
        self._metrics = numbers(trainer.callback_metrics)
        self._saver.log_metrics(trainer.global_step, self._metrics, self._ended)
        if self.manager.monitor not in self._metrics:
            log.warning(
                "epoch %d logged no %s; there are: %s", self._ended, self.manager.monitor, ", ".join(self._metrics) or "none"
            )

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """The epoch before is over with all that follows it: save it."""
        if self._ended and self._ended % self.save_every_n_epochs == 0:
            self._save(trainer, pl_module, final=False)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the last epoch, whichever it was, and put the run's end on record."""
        if self._ended:
            self._save(trainer, pl_module, final=True)
        limits = ((trainer.max_epochs, trainer.current_epoch), (trainer.max_steps, trainer.global_step))
        reached_limit = any(limit is not None and limit >= 0 and reached >= limit for limit, reached in limits)
        self.manager.finish("completed" if reached_limit else "stopped")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Put on record how the training ended."""
        status = "failed" if isinstance(exception, Exception) else "interrupted"
        self.manager.finish(status, reason=f"{type(exception).__name__}: {exception}"[:500])

    def _save(self, trainer: Any, pl_module: Any, *, final: bool) -> None:
        epoch = self._ended
        if epoch <= self._saved:
            return
        model = self.model_of(pl_module)
        extra = {_EXTRA: _dump(trainer, pl_module, epoch)}
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]

        def write() -> Path:
            return self.manager.save_lora_weights(
                model, epoch, list(trainer.optimizers), schedulers, self._metrics, step=trainer.global_step, extra=extra
            )

        if self._saver.save(write, f"epoch {epoch}", final=final):
            self._saved = epoch


class ResumeFromCheckpointCallback(Callback):
    """Goes on from the newest valid checkpoint of the manager's run; where it has none, training begins at the start.

    Args:
        checkpoint_manager: the run, made with its ``run_number``.
        load_optimizer: put the optimizers' state back. Without it they begin anew, and the training is not exact.
        load_scheduler: put the schedulers' state back; the same.
        checkpoint: another checkpoint than the newest: ``epoch_003`` or ``best``.

    It stands before ``DistributedCheckpointCallback``. ``CheckpointError`` where no checkpoint is valid or one does not fit the module.
    """

    def __init__(
        self,
        checkpoint_manager: CheckpointManager,
        load_optimizer: bool = True,
        load_scheduler: bool = True,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.manager, self.checkpoint = checkpoint_manager, checkpoint
        self.load_optimizer, self.load_scheduler = load_optimizer, load_scheduler
        self._resumed: training_state.Saved | None = None

    def model_of(self, pl_module: Any) -> torch.nn.Module:
        """What is loaded; as ``DistributedCheckpointCallback.model_of``."""
        return pl_module

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Choose the checkpoint; put back weights, progress and the states of callbacks, plugins and data."""
        refuse_several_processes(trainer.world_size, "ResumeFromCheckpointCallback")
        self._resumed = self.manager.take_up(self.checkpoint)
        if self._resumed is None:
            log.info("%s has no checkpoint yet: training begins at the start", self.manager.run.label)
            return
        content = self._resumed.extra.get(_EXTRA) if isinstance(self._resumed.extra, dict) else None
        if not isinstance(content, dict) or content.keys() != _KEYS:
            raise CheckpointError(
                f"{self._resumed.info.path} was not saved by DistributedCheckpointCallback",
                hint="use CheckpointManager.restore()",
            )
        weights.load(self.model_of(pl_module), self._resumed.info.path, self._resumed.weights)
        _put_back(trainer, pl_module, content)
        log.info("going on from %s (step %d)", self._resumed.info.name, self._resumed.info.step)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Put back the optimizers, the schedulers and, last, the random state: now there is nothing before the first batch."""
        if self._resumed is None:
            return
        if self.load_optimizer:
            training_state.restore_optimizers(list(trainer.optimizers), self._resumed, self.model_of(pl_module))
        if self.load_scheduler:
            training_state.restore_schedulers([config.scheduler for config in trainer.lr_scheduler_configs], self._resumed)
        training_state.restore_random_state(self._resumed)


def _progress(trainer: Any) -> Iterator[tuple[str, Any]]:
    """The counters of the loops, of which ``global_step`` and ``current_epoch`` are made, but for that of the epochs."""
    epoch_loop = trainer.fit_loop.epoch_loop
    yield "batch", epoch_loop.batch_progress
    yield "scheduler", epoch_loop.scheduler_progress
    yield "automatic", epoch_loop.automatic_optimization.optim_progress
    yield "manual", epoch_loop.manual_optimization.optim_step_progress
    yield "validation", epoch_loop.val_loop.batch_progress


def _dump(trainer: Any, pl_module: Any, epoch: int) -> dict[str, Any]:
    callbacks = {callback.state_key: callback.state_dict() for callback in trainer.callbacks}
    module: dict[str, Any] = {"epoch": epoch - 1, "global_step": trainer.global_step}  # as Lightning counts
    pl_module.on_save_checkpoint(module)
    return {
        "epochs": epoch,
        "loops": {name: progress.state_dict() for name, progress in _progress(trainer)},
        "batches": trainer.fit_loop.epoch_loop._batches_that_stepped,
        "callbacks": {key: state for key, state in callbacks.items() if state},
        "precision": trainer.precision_plugin.state_dict(),
        "datamodule": trainer.datamodule.state_dict() if trainer.datamodule is not None else {},
        "module": module,
    }


def _put_back(trainer: Any, pl_module: Any, content: Mapping[str, Any]) -> None:
    # Not fit_loop.load_state_dict: that makes Lightning take up an epoch in the middle. This one begins at the next epoch.
    for progress in (trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_progress.total):
        for name in ("ready", "started", "processed", "completed"):
            setattr(progress, name, content["epochs"])
    for name, progress in _progress(trainer):
        progress.load_state_dict(content["loops"][name])
    trainer.fit_loop.epoch_loop._batches_that_stepped = content["batches"]
    for callback in trainer.callbacks:
        if callback.state_key in content["callbacks"]:
            callback.load_state_dict(content["callbacks"][callback.state_key])
    if content["precision"]:
        trainer.precision_plugin.load_state_dict(content["precision"])
    if trainer.datamodule is not None and content["datamodule"]:
        trainer.datamodule.load_state_dict(content["datamodule"])
    pl_module.on_load_checkpoint(content["module"])
