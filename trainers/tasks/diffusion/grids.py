"""A grid of made images at every evaluation, in ``logs/samples``: how they get better as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pitstop.configs.errors import ResourceError, first_line, is_out_of_memory
from pitstop.trainers.data.images.grid import save_grid
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.sample_hook import SampleHook
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.sampling import Sampler

DIRECTORY = "samples"
"""Below the run's ``logs``."""

ImageListener = Callable[[str, np.ndarray, int], None]
"""Is told the name of a picture, its pixels (uint8, ``(height, width, 3)``) and its step: a tracker's ``log_image``."""


class Grids(SampleHook):
    """Makes the same ``settings.diffusion.sample_images`` images from the same noise each time.

    The first process makes them alone, which has ``directory``. ``classes`` are the labels that are gone through, with their names, for a model that is
    told them.
    """

    def __init__(
        self,
        context: TrainingContext,
        config: DiffiTConfig,
        classes: Sequence[tuple[int, str]],
        reporter: Reporter,
        directory: Path | None,
        listeners: Sequence[ImageListener] = (),
    ) -> None:
        super().__init__(context)
        self.config, self.classes = config, classes
        self.reporter, self.directory, self.listeners = reporter, directory, listeners
        self._refused = False

    def make(self, step: int, give_up: Callable[[], None]) -> None:
        """Make the grid of a step."""
        if self.directory is None:
            return
        self.reporter.display.status("making images")
        count, steps = self.settings.diffusion.sample_images, self.settings.diffusion.sampling_steps
        classes = [self.classes[number % len(self.classes)] for number in range(count)] if self.config.classes else []
        sampler = Sampler(
            self.engine.model, self.config, self.engine.device, self.engine.accelerator.autocast, steps=steps, give_up=give_up
        )
        try:
            images = sampler.made(count, seed=self.settings.training.seed, labels=[label for label, _ in classes] or None)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                f"Out of memory making images at step {step}: {first_line(error)}", hint="Make fewer: --sample-images 4."
            ) from error
        self._write(images, [name for _, name in classes] or None, step)

    def _write(self, images: np.ndarray, names: Sequence[str] | None, step: int) -> None:
        assert self.directory is not None
        path = self.directory / f"step_{step:06d}.png"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            pixels = save_grid(images, path, labels=names)
        except OSError as error:
            if not self._refused:  # once, not at every grid
                self.reporter.warn(f"{path} cannot be written ({error.strerror or error}); training goes on without it.")
            self._refused = True
            return
        self._refused = False
        self.reporter.line(f"step {step}: {len(images)} images in {path.parent.parent.name}/{DIRECTORY}/{path.name}")
        for listener in self.listeners:
            listener(DIRECTORY, pixels, step)
