"""What training tells a person, apart from how it is drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import open_regular_file
from pitstop.configs.notices import Notice, Notices
from pitstop.configs.secrets import mask
from pitstop.configs.shown import printable


@dataclass(frozen=True)
class StepFigures:
    """What a display may show of a step. ``speed`` is in units (tokens, images) a second, ``memory`` a peak in bytes.

    ``logged`` marks the steps that have a row in ``metrics.jsonl``.
    """

    step: int
    epoch: float
    epochs: int
    loss: float
    learning_rate: float
    speed: float
    unit: str
    memory: int
    logged: bool


class Display:
    """Shows nothing, for every process but the first, which speaks for all; the command line brings those that draw training."""

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def warn(self, text: str) -> None:
        """Show a warning that stays."""

    def start(self, *, step: int, total_steps: int) -> None:
        """Training begins or goes on after ``step`` of ``total_steps`` optimizer steps."""

    def status(self, text: str) -> None:
        """Say what goes on in between: evaluating, saving."""

    def step(self, figures: StepFigures) -> None:
        """An optimizer step is done."""

    def close(self) -> None:
        """Nothing more comes."""


class Reporter:
    """Sends lines to the display and, once there is a run, to its ``logs/train.log`` with the time.

    ``notices`` is what was decided on the user's behalf so far, for the run's metadata: at first what came before, which is told.
    """

    def __init__(self, display: Display, notices: Iterable[Notice] = ()) -> None:
        self.display = display
        self.notices = Notices()
        self._log: Path | None = None
        self._early: list[str] = []
        self._refused = False
        for notice in notices:
            self.notice(notice)

    def log_into(self, path: Path) -> None:
        """Write this and every later line into ``path`` too; what was said before goes first."""
        self._log = path
        early, self._early = self._early, []
        for stamped in early:
            self._append(stamped)

    def line(self, text: str) -> None:
        """Tell something that went as it should."""
        text = printable(text, lines=True)
        self.display.line(mask(text))
        self._write(text)

    def warn(self, text: str) -> None:
        """Tell something that the user should look at."""
        text = printable(text, lines=True)
        self.display.warn(mask(text))
        self._write(f"warning: {text}")

    def notice(self, notice: Notice, *, source: str = "") -> None:
        """Tell and keep what was decided on the user's behalf; ``source`` (``Training data``) goes in front of the line."""
        self.notices.add(notice)
        (self.warn if notice.loss else self.line)(f"{source}: {notice}" if source else str(notice))

    def record(self) -> list[dict[str, Any]]:
        """The notices so far as metadata.json holds them, without secrets."""
        records = [notice.as_dict() for notice in self.notices]
        return [{key: mask(value) if isinstance(value, str) else value for key, value in record.items()} for record in records]

    def _write(self, text: str) -> None:
        stamped = f"{datetime.now().astimezone().isoformat(timespec='seconds')} {mask(text)}\n"
        if self._log is None:
            self._early.append(stamped)
        else:
            self._append(stamped)

    def _append(self, stamped: str) -> None:
        assert self._log is not None
        try:
            descriptor = open_regular_file(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # private, and no link
            with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(stamped)
        except OSError as error:  # a full disk must not end the training over a log line; the display has it
            if not self._refused:
                self.display.warn(f"{self._log} cannot be written: {error.strerror}")
            self._refused = True
