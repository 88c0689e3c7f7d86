"""The Python API: the store of ``pitstop train`` for a training loop of one's own.

A run made here is a run like any other: numbered, locked, its checkpoints committed with manifests, verified, quarantined and
pruned by the same code, and shown by ``pitstop list-runs``, ``show``, ``verify``, ``prune`` and ``delete``.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from pitstop.checkpointing import manager_values
from pitstop.checkpointing.disk import dotted, inspection, layout, storage
from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs import create, retention
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.listing import list_all_runs, unfinished_run
from pitstop.checkpointing.runs.metadata import COMPLETED, FAILED, INTERRUPTED, RUNNING, STOPPED, RecordedCheckpoint, plain_number
from pitstop.checkpointing.runs.run_directory import MetadataChanges, RunDirectory
from pitstop.checkpointing.state import training_state, versions, weights
from pitstop.checkpointing.state.training_state import Optimizers, Parts, Saved, Schedulers
from pitstop.checkpointing.store.portable_paths import portable_settings
from pitstop.checkpointing.store.store import BEST_REASONS, CheckpointFacts, CheckpointInfo
from pitstop.configs.errors import CheckpointError, RunError, SettingsError

__all__ = ["CheckpointManager", "list_all_runs", "unfinished_run"]

FINISHED = (COMPLETED, FAILED, STOPPED, INTERRUPTED)


class CheckpointManager:
    """One run: makes it, or opens run ``run_number`` where that exists, and saves and loads its checkpoints.

    Reading takes no lock. The first call that writes takes the run's lock, drops what a crash has left, and sets damaged
    checkpoints aside; the lock is held until ``close``, ``finish``, the end of a ``with`` block or the end of the process.

    Args:
        base_dir: where the runs lie. The runs of ``…/base_training`` have their checkpoints in ``checkpoints`` instead of
            ``lora_weights``, as base trainings do.
        experiment_name: what the run belongs to. None with a ``run_number`` that exists: whatever that run says.
        run_number: None takes the next free number. A number that exists continues that run, any other makes it.
        monitor: the metric that decides which checkpoint is best; where no checkpoint has it, ``train_loss`` does. None: what the
            run says, else ``val_loss``.
        mode: ``min`` or ``max``: which way ``monitor`` is better. None: what the run says, else ``min``.
        training_config: settings of the training, for the record (plain values); in ``metadata["training_config"]``.
        lora_config: the same for the adapter; taken from PEFT at the first save where it is not given.

    Raises:
        SettingsError: an argument that cannot be used.
        RunError: the run is of another experiment, or cannot be made here.
        ResourceError: the disk is full.
    """

    def __init__(
        self,
        base_dir: Path | str = "checkpoints",
        experiment_name: str | None = None,
        run_number: int | None = None,
        *,
        monitor: str | None = None,
        mode: str | None = None,
        training_config: Mapping[str, Any] | None = None,
        lora_config: Mapping[str, Any] | None = None,
    ) -> None:
        manager_values.check_arguments(experiment_name, run_number, monitor, mode)
        base, group = layout.split_base(base_dir)
        self._stack = contextlib.ExitStack()
        self._release = weakref.finalize(self, self._stack.close)
        self._owned = False
        self._taken_up: CheckpointInfo | None = None
        self._unrecorded: CheckpointInfo | None = None  # the start of a new line that is not on record as a resume yet
        self._has_logged = False
        existing = base / group / layout.run_directory_name(run_number) if run_number is not None else None
        if existing is not None and existing.is_dir():
            self.run = RunDirectory(existing.absolute())
            recorded = self.experiment_name
            if experiment_name is not None and recorded not in (None, experiment_name):
                raise RunError(
                    f"{self.run.label} belongs to the experiment '{recorded}', not to '{experiment_name}'",
                    hint="leave run_number out for a new run, or give the run's own experiment_name",
                )
        else:
            checkpoint = {"base_dir": str(base_dir), "monitor": monitor or "val_loss", "mode": mode or "min"}
            training, lora = {**(training_config or {}), "checkpoint": checkpoint}, dict(lora_config or {})
            naming = {"experiment_name": experiment_name}
            config = manager_values.plain({layout.MADE_BY: layout.MANAGER, "naming": naming, "training": training, "lora": lora})
            name = manager_values.name(experiment_name)
            metadata = {"method": "full" if group else None, "base_model": {"saved": False}}
            self.run = create.create_run(base / group, name=name, config=config, metadata=metadata, number=run_number)
        self._log = MetricsLog(self.run.metrics_path)
        self.set_monitor(monitor, mode)

    # Where things are

    @property
    def run_number(self) -> int:
        """3 for ``run_003``."""
        return self.run.number

    @property
    def run_dir(self) -> Path:
        """The run's directory."""
        return self.run.path

    @property
    def logs_dir(self) -> Path:
        """Where logs go: ``metrics.jsonl`` and whatever else is put there."""
        return self.run.logs_dir

    @property
    def checkpoints_dir(self) -> Path:
        """Where the checkpoints lie, with the pointers ``best`` and ``last``."""
        return self.run.store.directory

    @property
    def metadata(self) -> dict[str, Any]:
        """metadata.json as it is now. ``CheckpointError`` where it is damaged."""
        return dict(self.run.metadata().content)

    @property
    def experiment_name(self) -> str | None:
        """The experiment that the run belongs to."""
        name = dotted.at(self.run.config(), "naming.experiment_name")
        return name if isinstance(name, str) else None

    @property
    def monitor(self) -> str:
        """The metric that decides which checkpoint is best."""
        return self.run.store.monitor

    @property
    def mode(self) -> str:
        """``min`` or ``max``."""
        return self.run.store.mode

    def set_monitor(self, monitor: str | None = None, mode: str | None = None) -> None:
        """Judge by another metric from here on; None leaves that part as it is. ``SettingsError`` for an unknown mode."""
        manager_values.check_arguments(None, None, monitor, mode)
        self.run.store.monitor = monitor or self.run.store.monitor
        self.run.store.mode = mode or self.run.store.mode

    # Saving

    def save_base_model(self, model: torch.nn.Module) -> Path:
        """Save what never changes in training, once for all runs in ``base_dir`` that share it; the directory with the files.

        Of a PEFT model that is all but the adapter, of any other the parameters that do not train and the buffers (all, where
        everything trains). A Transformers model can be read from the directory with ``from_pretrained``. Calling it again
        costs a hash.

        Raises:
            CheckpointError: the run has another base already, or something in the model is no tensor.
            ResourceError: the disk is full.
        """
        self._own()
        base = weights.base_of(weights.unwrapped(model))
        bases = BaseModels(self.run.base_dir, self.run.storage)
        saved_digest, recorded = bases.digest_of(self.run_dir), self.run.metadata().base_model
        if saved_digest is not None and base.frozen_digest() == recorded.frozen:
            return bases.base_location(self.run_dir)
        digest = base.digest()
        if saved_digest is not None and saved_digest != digest:
            raise CheckpointError(
                f"{self.run.label} has another base model than this one ({saved_digest[:12]}, {digest[:12]})",
                hint="load the run's own base with load_base_model(), or start a new run",
            )
        bases.save_once(digest, base.write)
        location = bases.link_into(self.run_dir, digest)
        described = {"saved": True, "digest": digest, "frozen": base.frozen_digest()}
        described |= {"names": dict(base.names), "aliases": dict(base.aliases)}
        self.run.update_metadata({"base_model": described, "status": RUNNING})
        return location

    @property
    def has_base_model(self) -> bool:
        """Whether the run has a base: ``save_base_model`` was called, and nobody took it away since."""
        return self._base_digest() is not None

    def _base_digest(self) -> str | None:
        return BaseModels(self.run.base_dir).digest_of(self.run_dir)

    def save_lora_weights(
        self,
        model: torch.nn.Module,
        epoch: float,
        optimizer: Optimizers = None,
        scheduler: Schedulers = None,
        metrics: Mapping[str, Any] | None = None,
        *,
        step: int | None = None,
        name: str | None = None,
        scaler: Any = None,
        extra: Any = None,
    ) -> Path:
        """Commit a checkpoint of ``model``; once this returns, it survives a crash and a power loss. Its directory.

        What of the model is saved: the adapter of a PEFT model; of any other, where its base is saved, the parameters that train
        and the buffers; else everything. The state of every random generator is saved with it.

        Args:
            model: the model; what DistributedDataParallel or ``torch.compile`` put around it is taken off.
            epoch: passes over the data done so far. The checkpoint of epoch 3 is ``epoch_003``.
            optimizer: an optimizer or a list of them, to be continued exactly.
            scheduler: a learning-rate scheduler or a list of them.
            metrics: numbers by name. The best checkpoint follows from the monitored one.
            step: optimizer steps done so far, by which checkpoints are ordered. None: the epoch's number, or one more than the
                newest checkpoint's step if that is larger.
            name: ``epoch_003`` or ``checkpoint-100``; None: by the epoch, which then is a whole number from 1.
            scaler: a ``torch.amp.GradScaler``.
            extra: what else the loop wants back: numbers, text, lists, dictionaries and tensors.

        Raises:
            CheckpointError: the name is taken (checkpoints are never overwritten), or something cannot be saved without pickle.
            SettingsError: an epoch, step or metric that cannot be used.
            ResourceError: the disk is full; nothing is left of the attempt.
        """
        self._own()
        name = name or manager_values.epoch_name(epoch)
        self._start_new_line()
        inner = weights.unwrapped(model)
        selection = weights.take(inner, base_saved=self.has_base_model)
        parts = Parts(optimizer, scheduler, scaler, extra)
        files = training_state.files(inner, selection, parts, self._settings(), versions.describe())
        info = self._commit(name, files, self._step(epoch, step), epoch, manager_values.numbers(metrics or {}))
        self.run.record_checkpoint(info, self._facts(info, inner))
        return info.path

    def _commit(
        self, name: str, files: Mapping[str, Any], step: int, epoch: float, metrics: Mapping[str, float | None]
    ) -> CheckpointInfo:
        digest = self._base_digest()
        with storage.saving(self._log.path):  # rows up to the checkpoint's step must be as durable as the checkpoint
            self._log.sync()
        facts = CheckpointFacts(
            step=step,
            epoch=epoch,
            metrics=metrics,
            world_size=1,
            fingerprints={"base": digest} if digest else {},
            versions=versions.describe()["versions"],
            saved_at=datetime.now().astimezone(),
        )
        info = self.run.store.write(name, files, facts)
        self.run.store.repair_pointers()
        return info

    def _step(self, epoch: float, step: int | None) -> int:
        if step is not None:
            if type(step) is not int or step < 0:
                raise SettingsError(f"step is {step!r}; it counts optimizer steps")
            return step
        infos = self.run.store.list()
        return max(int(epoch), infos[-1].step + 1 if infos else 0)

    def _settings(self) -> dict[str, Any]:
        """The settings in force without this machine's directories; the monitor may have been changed since the start."""
        settings = {key: value for key, value in self.run.config().items() if key != layout.MADE_BY}
        for key, value in (("monitor", self.monitor), ("mode", self.mode)):
            settings = dotted.replaced(settings, f"training.checkpoint.{key}", value)
        return portable_settings(settings)

    def _facts(self, info: CheckpointInfo, model: torch.nn.Module) -> MetadataChanges:
        metadata = self.run.metadata()
        progress = {**metadata.progress.content, "step": info.step, "epoch": info.epoch}
        facts: MetadataChanges = {"status": RUNNING, "progress": progress}
        if weights.is_peft(model):
            facts["method"] = metadata.method or "lora"
            facts["lora_config"] = metadata.lora_config or inspection.read_object(info, layout.ADAPTER_CONFIG)
        return facts

    def log_metrics(self, step: int, metrics: Mapping[str, Any], epoch: float | None = None) -> None:
        """Add a row to ``logs/metrics.jsonl``, of which ``pitstop compare`` draws curves: numbers by name.

        A resume takes the rows after its checkpoint away again. ``ResourceError`` where the disk refuses.
        """
        row = {"step": step, **({} if epoch is None else {"epoch": epoch}), **manager_values.numbers(metrics)}
        self._own()
        try:
            self._start_new_line()
        finally:
            if self._taken_up is None:  # otherwise it would stand among the rows that are to be set aside
                self._has_logged = True
                with storage.saving(self._log.path):
                    self._log.append(row)

    def note_progress(self, **values: Any) -> None:
        """Put how far the training is to go on record: ``total_steps`` and ``total_epochs``, for ``pitstop list-runs``."""
        self._own()
        self.run.update_metadata({"progress": {**self.run.metadata().progress.content, **values}, "status": RUNNING})

    # Loading

    def load_base_model(self, model: torch.nn.Module | None = None) -> dict[str, Any]:
        """The run's base, every byte verified, as ``{"state_dict": …, "path": …, "digest": …}`` on the CPU.

        ``state_dict`` has the names that the model had in ``save_base_model``, for ``model.load_state_dict(…, strict=False)``. With
        ``model`` it is loaded into that, and names, shapes and types must fit. ``CheckpointError`` where there is no base, or it is
        damaged or does not fit.
        """
        recorded = self.run.metadata().base_model
        bases = BaseModels(self.run.base_dir)
        path = bases.base_path(self.run_dir, recorded.digest)
        tensors = weights.read_base(path, recorded.names, recorded.aliases)
        if model is not None:
            inner = weights.unwrapped(model)
            weights.check_fit(inner, tensors, path)
            inner.load_state_dict(tensors, strict=False)
        return {"state_dict": tensors, "path": path, "digest": recorded.digest}

    def load_lora_weights(self, epoch: int | None = None, *, load_best: bool = False, load_last: bool = False) -> dict[str, Any]:
        """One checkpoint, every byte verified: of ``epoch``, the best, or (also where nothing is said) the last.

        ``lora_state_dict`` has the names of ``model.state_dict()``; ``state_dict`` is the same where the checkpoint holds the whole
        model. Besides: ``epoch``, ``step``, ``metrics``, ``optimizer_state_dict`` and ``scheduler_state_dict`` (lists where lists
        were saved, None where none was), ``scaler_state_dict``, ``extra``, ``name``, ``path``. Tensors are on the CPU.

        ``CheckpointError`` where there is no such checkpoint or it is damaged, ``SettingsError`` where more than one is asked for.
        """
        if (epoch is not None) + load_best + load_last > 1:
            raise SettingsError(
                "epoch=, load_best= and load_last= are three ways to pick one checkpoint", hint="give one of them"
            )
        which = layout.epoch_name(epoch) if epoch is not None else layout.BEST if load_best else layout.LAST
        return self._content(self._saved(which))

    def _saved(self, which: str) -> Saved:
        store = self.run.store
        return training_state.read(store.verify(store.resolve_name(which)))

    def _content(self, saved: Saved) -> dict[str, Any]:
        info = saved.info
        tensors = weights.read(info.path, saved.weights)
        optimizers = [entry["state"] for entry in saved.optimizers] if saved.optimizers is not None else None
        content = {
            "name": info.name,
            "path": info.path,
            "epoch": plain_number(info.epoch),
            "step": info.step,
            "metrics": dict(info.metrics),
            "lora_state_dict": tensors,
            "optimizer_state_dict": manager_values.single_or_all(optimizers, saved.optimizer_is_single),
            "scheduler_state_dict": manager_values.single_or_all(saved.schedulers, saved.scheduler_is_single),
            "scaler_state_dict": saved.scaler,
            "extra": saved.extra,
        }
        return content | ({"state_dict": tensors} if saved.weights["kind"] == weights.FULL else {})

    def load_for_resume(self, checkpoint: str | None = None) -> dict[str, Any] | None:
        """The newest valid checkpoint to go on from, as ``load_lora_weights`` gives it, and ``base_state_dict`` where a base is saved.

        Damaged checkpoints are set aside on the way, as ``pitstop resume`` does. ``checkpoint`` names another one (``epoch_003``,
        ``best``): what was saved and logged after it is set aside at the next save or logged row, which is recorded as a resume. None
        where the run has no checkpoint yet. ``CheckpointError`` where none is valid or the one asked for is not, ``RunError`` where another process
        writes the run. ``restore`` puts all of it back in one call.
        """
        saved = self.take_up(checkpoint)
        if saved is None:
            return None
        base = self.load_base_model()["state_dict"] if self.has_base_model else None
        return {**self._content(saved), "base_state_dict": base}

    def restore(
        self,
        model: torch.nn.Module,
        optimizer: Optimizers = None,
        scheduler: Schedulers = None,
        *,
        scaler: Any = None,
        checkpoint: str | None = None,
        random_state: bool = True,
    ) -> dict[str, Any] | None:
        """Put everything back in place to go on exactly: weights, optimizer, scheduler, scaler and, last, random state.

        As ``load_for_resume``, and returns ``epoch``, ``step``, ``metrics``, ``extra``, ``name`` and ``path`` of the checkpoint; None where
        the run has none. The base is not loaded: a checkpoint of an adapter goes onto the base that the program has built.
        ``CheckpointError`` where something does not fit; the model is changed only when its weights all fit.
        """
        saved = self.take_up(checkpoint)
        if saved is None:
            return None
        inner = weights.unwrapped(model)
        weights.load(inner, saved.info.path, saved.weights)
        if optimizer is not None:
            training_state.restore_optimizers(optimizer, saved, inner)
        if scheduler is not None:
            training_state.restore_schedulers(scheduler, saved)
        if scaler is not None and saved.scaler is not None:
            scaler.load_state_dict(saved.scaler)
        if random_state:
            training_state.restore_random_state(saved)
        info = saved.info
        facts = {"epoch": plain_number(info.epoch), "step": info.step, "metrics": dict(info.metrics)}
        return {**facts, "extra": saved.extra, "name": info.name, "path": info.path}

    def take_up(self, checkpoint: str | None = None) -> Saved | None:
        """The checkpoint to go on from, in the form that ``training_state`` puts back; as ``load_for_resume`` otherwise."""
        self._own()
        store = self.run.store
        if checkpoint is not None:
            saved = self._saved(checkpoint)
        else:
            report = store.recover()
            if report.valid is None and not report.quarantined and not store.set_aside(layout.DAMAGED):
                self.begin_log_anew()
                return None
            saved = training_state.read(report.checkpoint())
        self._taken_up = saved.info
        if saved.info.step >= store.list()[-1].step:  # what is logged after the newest checkpoint belongs to none
            self._cut_log(saved.info.step)
        return saved

    def begin_log_anew(self, step: int = 0) -> None:
        """Take away the rows of a process that ended before its first checkpoint: the training begins after ``step`` again.

        That is not the first step where the library goes on from a checkpoint of its own. Rows of step 0 stay where this manager
        has logged them: an evaluation before the training, say.
        """
        self._own()
        self._cut_log(step if step or self._has_logged else -1)

    def _cut_log(self, step: int) -> None:
        """Rows after ``step`` move to ``metrics.superseded.jsonl``."""
        with storage.saving(self._log.path):
            self._log.truncate_after(step)

    @property
    def going_on_from(self) -> str | None:
        """The checkpoint that was taken up and after which nothing has been saved yet."""
        return self._taken_up.name if self._taken_up is not None else None

    def _start_new_line(self) -> None:
        """At the first row or save after a resume: what came after its checkpoint is set aside, and the resume is put on record.

        Checkpoints and rows go in one moment: a process that dies before it leaves the run as it was, and one that dies after it
        leaves a run whose newest checkpoint is the one that was resumed from.
        """
        if (info := self._taken_up) is not None:
            of_the_step = [checkpoint for checkpoint in self.run.store.list() if checkpoint.step == info.step]
            has_later_twin = any(checkpoint.order > info.order for checkpoint in of_the_step)
            self.run.store.supersede(info.step, and_at_it=info.name if has_later_twin else None)
            self._cut_log(info.step)
            self._taken_up, self._unrecorded = None, info
        if self._unrecorded is not None:
            self.run.record_resume(self._unrecorded, {}, environment=versions.describe())
            self._unrecorded = None

    # Keeping order

    def cleanup_old_checkpoints(self, keep_last_n: int = 5, keep_best: bool = True) -> list[str]:
        """Delete all but the newest ``keep_last_n`` checkpoints; the names of those that went, oldest first.

        Never deleted: the newest, what the last resume started from, what is still to be pushed to the Hub, and the best one
        (unless ``keep_best`` is false). ``CheckpointError`` for fewer than one.
        """
        self._own()
        best = BEST_REASONS if not keep_best else frozenset()
        pins = {name for name, reasons in retention.pins(self.run).items() if not {*reasons} <= best}
        removed = self.run.store.prune(keep_last_n, protect=pins, keep_best=keep_best)
        if removed:
            self.run.store.repair_pointers()
            self.run.sync_checkpoints()
        return removed

    # What is known of it

    def get_run_summary(self) -> str:
        """The run in a few lines of text: number, name, status, progress, checkpoints with their metrics, the best one."""
        return manager_values.text(self.run)

    def get_best_checkpoint_info(self) -> dict[str, Any] | None:
        """The best checkpoint: ``name``, ``epoch``, ``step``, ``path``, ``metrics``, and by which ``metric``, ``mode`` and ``value``.

        None where no checkpoint has a metric to go by.
        """
        best = self.run.best_entry(self.run.store.list())
        return None if best is None else dict(best.content)

    def list_checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints by step: ``name``, ``epoch``, ``step``, ``path`` (relative to the base directory), ``metrics``, ``saved_at``, ``size``."""
        infos = self.run.store.list()
        return [dict(RecordedCheckpoint.of(info, self.run.base_dir).content) for info in infos]

    # Having it to oneself

    def _own(self) -> None:
        """Be the run's only writer from here on, with the run in a clean state. ``RunError`` names another one."""
        if self._owned:
            return
        if self.run.config().get(layout.MADE_BY) != layout.MANAGER:
            raise RunError(
                f"{self.run.label} was made by `pitstop train`, which alone writes it",
                hint=f"`pitstop resume {self.run.label}` goes on with it; leave run_number out for a run of your own",
            )
        self._stack.enter_context(self.run.lock({"command": "CheckpointManager"}))
        self._owned = True
        try:
            self.run.metadata()
        except CheckpointError:
            self.run.rebuild_metadata()
        self.run.store.recover()
        self.run.sync_checkpoints()

    def finish(self, status: str = COMPLETED, *, reason: str | None = None) -> None:
        """Put on record how the training ended (``completed``, ``failed``, ``stopped`` or ``interrupted``) and give the run up."""
        if status not in FINISHED:
            raise SettingsError(f"status is '{status}'; a run ends as one of {', '.join(FINISHED)}")
        self._own()
        with storage.saving(self._log.path):
            self._log.sync()
        self.run.sync_checkpoints({"status": status, "status_reason": reason} if reason else {"status": status})
        self.close()

    def close(self) -> None:
        """Give the run up: another process may write it. A run that was not finished is shown as interrupted."""
        if self._owned:
            self._owned = False
            with self._stack, storage.saving(self._log.path):  # the lock is given up also where the disk refuses the last rows
                self._log.close()

    def __enter__(self) -> CheckpointManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or not self._owned:
            self.close()
            return
        if issubclass(kind, Exception):
            self.finish(FAILED, reason=f"{kind.__name__}: {error}"[:500])
        else:
            self.finish(INTERRUPTED)

    def __repr__(self) -> str:
        return f"CheckpointManager({str(self.run.path)!r})"
