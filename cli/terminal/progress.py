"""How training looks: a progress bar on a terminal, plain lines elsewhere, nothing with ``--quiet``."""

from __future__ import annotations

import sys
import time
from typing import IO, Any

from pitstop.cli.terminal.output import is_terminal, use_color, warn
from pitstop.configs.shown import human_duration, human_size
from pitstop.trainers.reporter import Display, StepFigures


def make_display(*, quiet: bool, json_output: bool) -> Display:
    """The display that fits: results of ``--json`` go to stdout alone, so everything else then goes to stderr."""
    if quiet:
        return QuietDisplay()
    stream = sys.stderr if json_output else sys.stdout
    return RichDisplay(stream) if is_terminal(stream) else PlainDisplay(stream)


class QuietDisplay(Display):
    """Warnings only."""

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        warn(text)


class _Eta:
    """Seconds left, from the pace since training (re)started."""

    def __init__(self, step: int, total: int) -> None:
        self.first, self.total, self.started = step, total, time.monotonic()

    def text(self, step: int) -> str:
        """The duration as people read it; ``?`` before the first step."""
        steps = step - self.first
        return human_duration((time.monotonic() - self.started) / steps * (self.total - step)) if steps else "?"


class PlainDisplay(Display):
    """A line for each logged step, for logs and pipes."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._eta = _Eta(0, 0)

    def line(self, text: str) -> None:
        """Print a line."""
        print(f"{text}\n", end="", file=self._stream, flush=True)  # one write: a save speaks from a thread of its own

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        warn(text)

    def start(self, *, step: int, total_steps: int) -> None:
        """Start the clock."""
        self._eta = _Eta(step, total_steps)

    def step(self, figures: StepFigures) -> None:
        """Print the figures of logged steps."""
        if figures.logged:
            self.line(f"step {figures.step}/{self._eta.total}  {_in_words(figures)}  left {self._eta.text(figures.step)}")


def _in_words(figures: StepFigures) -> str:
    return (
        f"epoch {figures.epoch:.2f}/{figures.epochs}  loss {figures.loss:.4f}  lr {figures.learning_rate:.2e}  "
        f"{figures.speed:,.0f} {figures.unit}/s  {human_size(figures.memory)}"
    )


class RichDisplay(Display):
    """A bar that stays at the bottom of the terminal while lines scroll by above it."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console

        self._console = Console(file=stream, no_color=not use_color(stream), highlight=False, soft_wrap=True)
        self._eta = _Eta(0, 0)
        self._progress: Any = None
        self._task: Any = None

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, style="green" if text.startswith("saved ") else None)

    def warn(self, text: str) -> None:
        """Print a warning above the bar."""
        self._console.print(f"warning: {text}", markup=False, style="yellow")

    def start(self, *, step: int, total_steps: int) -> None:
        """Draw the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._eta = _Eta(step, total_steps)
        columns = [BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)]
        self._progress = Progress(*columns, console=self._console, transient=True, refresh_per_second=4)
        self._task = self._progress.add_task("starting", total=total_steps, completed=step)
        self._progress.start()

    def status(self, text: str) -> None:
        """Show a passing state behind the bar."""
        if self._progress is not None:
            self._progress.update(self._task, description=text)

    def step(self, figures: StepFigures) -> None:
        """Move the bar."""
        if self._progress is not None:
            left = self._eta.text(figures.step)
            self._progress.update(self._task, completed=figures.step, description=f"{_in_words(figures)}  left {left}")

    def close(self) -> None:
        """Take the bar away and give the cursor back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
