"""Images from an opened checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pitstop.configs.errors import SettingsError
from pitstop.trainers.data.images.classes import class_ids
from pitstop.trainers.data.images.grid import save_grid
from pitstop.trainers.data.images.image_set import Images
from pitstop.trainers.tasks.diffusion.sampling import Sampler
from pitstop.trainers.using.opened import OpenModel

Told = tuple[tuple[int, str], ...]
"""Classes that a model is told of: number and name, gone through from the first to the last and again."""


def told_classes(opened: OpenModel, wanted: Sequence[str]) -> Told:
    """The classes to make images of: those of ``wanted``, otherwise all that the run was trained on. Empty for a model that is told none.

    Raises ``SettingsError`` for classes of such a model, and ``DataError`` for one that there is not.
    """
    if not opened.tokenizer.classes:
        if wanted:
            raise SettingsError(
                f"--class: the model of {opened.chosen.run.label} is not conditioned on classes.",
                hint="Leave it out, or train a model from scratch with --conditional-classes.",
            )
        return ()
    data = opened.chosen.run.readable_metadata().data
    counts = data.classes  # of the images of each class that was trained on
    names = list(data.class_names) if counts else []
    names = names or [str(number) for number in range(opened.tokenizer.classes)]
    names = names[: opened.tokenizer.classes]  # the data set may have more, of which none were trained on
    trained = [number for number, name in enumerate(names) if name in counts] or list(range(len(names)))
    numbers = class_ids(wanted, names) if wanted else trained
    return tuple((number, names[number]) for number in numbers)


def images_of(opened: OpenModel, count: int, told: Told, *, seed: int, steps: int | None, batch_size: int) -> Images:
    """``count`` images of what is in use, uint8 ``(count, channels, size, size)``; the same for the same seed."""
    config, settings = opened.tokenizer, opened.chosen.settings
    with opened.in_use() as model:
        sampler = Sampler(
            model,
            config,
            opened.hardware.device,
            opened.engine.accelerator.autocast,
            steps=steps or settings.diffusion.sampling_steps,
            batch_size=batch_size,
        )
        labels = [told[number % len(told)][0] for number in range(count)] if told else None
        return sampler.made(count, seed=seed, labels=labels)


def grid_of(images: Mapping[str, Images], told: Told, path: Path) -> None:
    """One picture of the images of each model, a model below another."""
    count = len(next(iter(images.values())))
    captions = [told[number % len(told)][1] for number in range(count)] * len(images) if told else None
    columns = None if len(images) == 1 else min(count, 16)
    save_grid(np.concatenate(list(images.values())), path, columns=columns, labels=captions)
