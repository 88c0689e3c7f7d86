"""What metadata.json and the log say of a training while it runs, and where an error or a signal ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import PitstopError
from pitstop.trainers.machine.launch import lost_peer
from pitstop.trainers.reporter import Reporter


@contextlib.contextmanager
def running(run: RunDirectory, reporter: Reporter) -> Iterator[None]:
    """Have the run's log written and the run marked as running while inside, as failed or interrupted if an error ends it."""
    reporter.log_into(run.logs_dir / layout.TRAIN_LOG)
    run.update_metadata({"status": "running"})
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _record_end(run, "interrupted", "stopped by a signal")
        raise
    except BaseException as error:
        cause = lost_peer(error) or error
        reason = cause.message if isinstance(cause, PitstopError) else f"{type(cause).__name__}: {cause}"
        _record_end(run, "failed", reason[:500])
        raise


def _record_end(run: RunDirectory, status: str, reason: str) -> None:
    with contextlib.suppress(PitstopError, OSError):  # the error that ended the training is the one to show
        run.update_metadata({"status": status, "status_reason": reason})
