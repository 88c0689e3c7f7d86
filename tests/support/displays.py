"""A display that tests look at."""

from __future__ import annotations

from pitstop.trainers.reporter import Display


class Lines(Display):
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
