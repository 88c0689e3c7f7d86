"""TensorBoard: event files in the run's ``logs/tensorboard``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import LocalStorage, make_directories
from pitstop.checkpointing.runs.metadata import COMPLETED
from pitstop.trainers.tracking.tracker import RunTracker, change_lines


class TensorBoardRun(RunTracker):
    """A resume writes a new event file whose first record makes later steps of the older ones void, as TensorBoard reads them."""

    name = "tensorboard"
    package = "tensorboard"
    requires_logging_directory = True

    def start(self) -> None:
        """Open a new event file."""
        from torch.utils.tensorboard import SummaryWriter

        directory = self.subject.logs / layout.TENSORBOARD
        wait_for_a_later_name(directory)
        make_directories(LocalStorage(), directory)
        self._writer: Any = SummaryWriter(str(directory), purge_step=self.subject.first_step)
        for path in directory.iterdir():  # the library lets everybody read what it makes
            path.chmod(0o600)

    @property
    def tracker(self) -> Any:
        """The ``SummaryWriter``."""
        return self._writer

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Log the settings as the run's hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(values), {}):  # add_hparams would make a run of its own for them
            self._writer.file_writer.add_summary(summary)
        self._writer.flush()

    def note_changes(self, changes: Mapping[str, tuple[Any, Any]], step: int) -> None:
        """A text of the tag ``changed``."""
        self.log_text("changed", "\n".join(f"- {line}" for line in change_lines(changes)), step)

    def log(self, values: Mapping[str, float], step: int | None = None, **_: Any) -> None:
        """Each value is a scalar at ``step``."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, global_step=step)
        self._writer.flush()

    def log_text(self, name: str, text: str, step: int) -> None:
        """As Markdown."""
        self._writer.add_text(name, text, global_step=step)
        self._writer.flush()

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """As PNG."""
        self._writer.add_image(name, image, global_step=step, dataformats="HWC")
        self._writer.flush()

    def finish(self, status: str = COMPLETED) -> None:
        """Close the file; TensorBoard knows no outcome."""
        self._writer.close()


def wait_for_a_later_name(directory: Path) -> None:
    """Event files are read in the order of their names, which begin with the second: the next one must not share it."""
    newest = max((path.name.split(".")[3] for path in directory.glob("events.out.tfevents.*")), default="")
    while newest.isdigit() and int(newest) == int(time.time()):
        time.sleep(0.05)
