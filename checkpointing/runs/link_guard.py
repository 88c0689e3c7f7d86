"""Whether the parts of a run lie in the run: whoever writes follows no link that leads out of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pitstop.checkpointing.disk import inspection, layout
from pitstop.configs.errors import CheckpointError, RunError

_TRACKERS = (f"{layout.LOGS}/{layout.TENSORBOARD}", f"{layout.LOGS}/{layout.WANDB}")
_DIRECTORIES = (layout.LOGS, layout.BASE_MODEL, *_TRACKERS)
_LOG_FILES = (layout.METRICS, layout.SUPERSEDED_METRICS, layout.TRAIN_LOG)


def check_own(run: Path) -> None:
    """Refuse to write in a run that is, or of which a part is, a link to elsewhere. ``RunError``, ``CheckpointError``."""
    if not inspection.is_real_directory(run):
        raise linked_run(run)
    weights = layout.weights_directory(run)
    directories = [weights, weights / layout.DAMAGED, weights / layout.SUPERSEDED, *(run / name for name in _DIRECTORIES)]
    for path in directories:
        if os.path.lexists(path) and not inspection.is_real_directory(path):
            raise _not_own(path, "a directory")
    for path in (run / layout.LOGS / name for name in _LOG_FILES):
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise _not_own(path, "a file")


def linked_run(path: Path) -> RunError:
    """The error for a run directory that is a link."""
    return RunError(
        f"{path} is a link to {Path(os.path.realpath(path))}, not a run of this directory",
        hint="if you mean the run there, give its own path",
    )


def _not_own(path: Path, kind: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not {kind} of its own but leads elsewhere, so nothing is written there",
        hint="if you did not make it, do not trust this run; otherwise put the files in its place",
    )
