"""Runs that stand on a base training: which checkpoint of it they mean, and which checkpoints others need."""

# Abspath keeps links as the user named them, which resolve() does not.
# ruff: noqa: PTH100
from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.checkpointing.disk import dotted, layout
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.metadata import RecordedOrigin
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store import file_sets
from pitstop.checkpointing.store.model_files import check_model
from pitstop.configs.errors import CheckpointError, RunError

if TYPE_CHECKING:
    from pitstop.configs.load import BaseRun

FROM = "from"
"""Key in a run's ``base_model`` of metadata.json: the run and checkpoint that it stands on."""


@dataclass(frozen=True)
class BaseCheckpoint:
    """A checkpoint of a base training, looked up and not hashed."""

    run: RunDirectory
    info: CheckpointInfo

    @property
    def path(self) -> Path:
        return self.info.path

    def verify(self) -> None:
        """Hash every file, and make sure that they are those of a model. ``CheckpointError``."""
        self.run.store.verify(self.info.name)
        names = self.info.manifest.files.keys()
        missing, foreign = file_sets.form_of(self.run.config()).problems(names, self.info.manifest.world_size)
        if missing or foreign:
            raise CheckpointError(f"{self.path}: {', '.join([*missing, *foreign][:5])} is missing or no file of a checkpoint")
        check_model(self.path, names)

    def model_hashes(self) -> list[tuple[str, str]]:
        """What makes the model what it is: names and SHA-256 of config and weights, of the average where there is one."""
        files = self.info.manifest.files
        served = file_sets.form_of(self.run.config()).served(files.keys())
        names = [name for name in served if name == file_sets.MODEL_CONFIG or name.endswith(".safetensors")]
        return sorted((name, files[served[name]].sha256) for name in names)

    def record(self) -> dict[str, Any]:
        """What metadata.json of a run that stands on it says."""
        return {"run": self.run.label, "name": self.run.name, "checkpoint": self.info.name, "step": self.info.step}


def find_base_checkpoint(base_dir: Path | str, reference: str) -> BaseCheckpoint:
    """The checkpoint of a base training that ``reference`` means, its best where it picks none. ``RunError``, ``CheckpointError``."""
    run, which = locate(base_dir, reference)
    if not file_sets.form_of(run.config()).full_model:
        raise RunError(
            f"{run.label} trained an adapter, not a model to stand on", hint="give a base training, such as base_training/1@best"
        )
    return BaseCheckpoint(run, run.store.resolve(which or layout.BEST))


def look_up(base_dir: str, reference: str) -> BaseRun:
    """What settings make of a base training. Raises as ``find_base_checkpoint``."""
    from pitstop.configs.load import BaseRun  # with the schema, which commands that only read runs do without

    checkpoint = find_base_checkpoint(base_dir, reference)
    is_own = checkpoint.run.base_dir == Path(os.path.abspath(base_dir))
    run = checkpoint.run.label if is_own else str(checkpoint.run.path)
    values = {"model.id": checkpoint.run.name, "training.task": dotted.at(checkpoint.run.config(), "training.task")}
    known = {path: value for path, value in values.items() if value is not None}
    return BaseRun(f"{run}@{checkpoint.info.name}", checkpoint.run.label, known)


def dependents(run: RunDirectory) -> dict[str, list[str]]:
    """The runs beside the base training ``run`` that stand on its checkpoints: checkpoint → labels, as the listing has them."""
    if not run.group:
        return {}
    labels: dict[str, list[str]] = {}
    for record in list_runs(run.base_dir):
        path = Path(record.path)
        try:
            status = (path / layout.METADATA).stat()
        except OSError:
            continue
        origin = _origin(path, status.st_ino, status.st_mtime_ns)
        # The name too: a number that was freed may belong to another run now.
        if origin.run == run.label and origin.name == run.name and origin.checkpoint is not None:
            labels.setdefault(origin.checkpoint, []).append(record.run)
    return labels


@lru_cache(maxsize=4096)
def _origin(run: Path, inode: int, modified_ns: int) -> RecordedOrigin:
    """What the run in ``run`` stands on. Retention asks after each save; each metadata.json (``inode``, ``modified_ns``) is read once."""
    return RunDirectory(run).readable_metadata().base_model.origin
