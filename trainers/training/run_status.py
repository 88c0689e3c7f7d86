"""What metadata.json and the log say of a training while it runs, and where an error or a signal ends it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs.metadata import FAILED, INTERRUPTED, RUNNING, RecordedUsage
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import PitstopError
from pitstop.trainers.machine.device import peak_memory_bytes
from pitstop.trainers.machine.launch import lost_peer
from pitstop.trainers.reporter import Reporter


@contextlib.contextmanager
def running(run: RunDirectory, reporter: Reporter) -> Iterator[None]:
    """Have the run's log written and the run marked as running while inside, as failed or interrupted if an error ends it."""
    reporter.log_into(run.logs_dir / layout.TRAIN_LOG)
    run.update_metadata({"status": RUNNING})
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _record_end(run, INTERRUPTED, "stopped by a signal")
        raise
    except BaseException as error:
        cause = lost_peer(error) or error
        reason = cause.message if isinstance(cause, PitstopError) else f"{type(cause).__name__}: {cause}"
        _record_end(run, FAILED, reason[:500])
        raise


class Usage:
    """What training takes: seconds from here on and the most memory that this process held, added to what ``earlier`` processes took."""

    def __init__(self, device: torch.device, earlier: RecordedUsage) -> None:
        self.device, self.earlier = device, earlier
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training in this process."""
        return time.monotonic() - self._started

    def record(self) -> dict[str, float]:
        """What metadata.json says of it now."""
        peak = max(peak_memory_bytes(self.device), self.earlier.peak_memory_bytes or 0)
        return {"training_s": round((self.earlier.training_s or 0.0) + self.seconds, 1), "peak_memory_bytes": peak}


def _record_end(run: RunDirectory, status: str, reason: str) -> None:
    with contextlib.suppress(PitstopError, OSError):  # the error that ended the training is the one to show
        run.update_metadata({"status": status, "status_reason": reason})
