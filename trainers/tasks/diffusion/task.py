"""diffusion: a denoiser of images, from which new ones are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pitstop.configs.datasets import DataSource, parse_sources
from pitstop.configs.errors import DataError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.data.images.classes import choose_classes
from pitstop.trainers.data.images.data import ImageData, hold_out
from pitstop.trainers.data.images.reading import has_validation, read_images
from pitstop.trainers.data.reading import ReadOptions
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.tasks.base import Direction, Task, Training
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.fid import check_available, fid
from pitstop.trainers.tasks.diffusion.grids import DIRECTORY, Grids


class DiffusionTask(Task):
    """Images of chosen classes, in the size of the network."""

    name = "diffusion"
    unit = "images"
    always: ClassVar[Mapping[str, Direction]] = {"val_loss": "min"}

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        super().__init__(tokenizer, settings)
        self.config: DiffiTConfig = tokenizer
        self._trained_on: list[tuple[int, str]] = []  # the classes that training data was found to have

    def load(self, sources: Sequence[DataSource], options: ReadOptions, cache: DataCache | None) -> ImageData:
        """The images of one place."""
        del cache
        if len(sources) > 1:
            raise SettingsError(
                f"{len(sources)} data sets are given; the task diffusion takes one.", hint="Put the images into one folder."
            )
        spec, data = sources[0].spec, self.settings.data
        images = read_images(
            spec,
            split=options.split,
            size=self.config.image_size,
            channels=self.config.channels,
            data_root=Path(data.root).expanduser(),
            skip_bad_rows=options.skip_bad_rows,
            tell=self.say,
        )
        if data.classes:
            images = choose_classes(images, data.classes)
        if not len(images):
            raise DataError(f"{spec}: there are no images.", hint="Give a folder with one folder of images a class.")
        if self.config.classes and int(images.labels.max()) >= self.config.classes:
            raise DataError(
                f"{spec} has {len(images.class_names)} classes, and the model is conditioned on {self.config.classes}.",
                hint=f"Train a model from scratch with --conditional-classes {len(images.class_names)}.",
            )
        if options.split == "train":
            self._trained_on = [(number, images.class_names[number]) for number in np.flatnonzero(images.counts()).tolist()]
        return ImageData(images)

    def hold_out(self, train: Sequences, fraction: float, options: ReadOptions) -> tuple[ImageData, ImageData]:
        """The same share of each class."""
        del options
        assert isinstance(train, ImageData)
        return hold_out(train, fraction, seed=self.settings.training.seed)

    def splits_itself(self) -> bool:
        """The data set's own held-out half is evaluated, where it has one and no share of the training data is asked for."""
        data = self.settings.data
        return data.eval_fraction == 0 and not data.eval and has_validation(parse_sources(data.train)[0].spec)

    def samples(self, training: Training) -> Grids | None:
        """A grid of made images."""
        if not self.settings.diffusion.sample_images:
            return None
        directory = training.run.logs_dir / DIRECTORY if training.run is not None else None
        return Grids(training.context, self.config, self._trained_on, training.reporter, directory, [training.tracking.log_image])

    def metrics(self, evaluation: Sequences) -> Mapping[str, Direction]:
        """The Fréchet inception distance, if it is asked for. Raises ``SettingsError`` where what it takes is not here."""
        del evaluation
        if not self.settings.diffusion.fid_images:
            return {}
        check_available()
        return {"fid": "min"}

    def score(self, evaluation: Sequences, scoring: Scoring) -> dict[str, float]:
        """The distance between made images and those of ``evaluation``."""
        if not self.settings.diffusion.fid_images:
            return {}
        assert isinstance(evaluation, ImageData)
        return {"fid": fid(evaluation, scoring, self.config, self.settings)}
