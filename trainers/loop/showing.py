"""What is seen of a training while it runs: the display, and a line at the end of each epoch and evaluation."""

from __future__ import annotations

from collections.abc import Collection

import torch

from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.device import peak_memory_bytes
from pitstop.trainers.reporter import Reporter


class Show:
    """Feeds the display, and says a line at the end of each epoch. ``hidden`` names metrics that only the log has, ``unit`` is what is counted."""

    def __init__(
        self,
        reporter: Reporter,
        every: int,
        epochs: int,
        progress: Progress,
        device: torch.device,
        hidden: Collection[str] = (),
        unit: str = "tokens",
    ) -> None:
        self.reporter, self.every, self.epochs, self.progress = reporter, every, epochs, progress
        self.device, self.hidden, self.unit = device, hidden, unit
        self._tokens = progress.tokens

    def at_boundary(self, boundary: Boundary) -> None:
        """Show this step."""
        tokens, self._tokens = self.progress.tokens - self._tokens, self.progress.tokens
        self.reporter.display.step(
            step=boundary.step,
            epoch=boundary.epoch,
            epochs=self.epochs,
            loss=self.progress.unlogged.mean(),
            learning_rate=boundary.learning_rate,
            speed=tokens / boundary.step_s if boundary.step_s else 0.0,
            unit=self.unit,
            memory=peak_memory_bytes(self.device),
            logged=boundary.step % self.every == 0,
        )
        if boundary.scored and (boundary.epoch_ended or boundary.metrics):
            figures = ", ".join(f"{key} {value:.4f}" for key, value in boundary.scored.items() if key not in self.hidden)
            place = f"epoch {self.progress.epoch + 1}/{self.epochs}" if boundary.epoch_ended else f"step {boundary.step}"
            self.reporter.line(f"{place}: {figures}")
