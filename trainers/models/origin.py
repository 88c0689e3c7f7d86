"""Whether files are the base that a run was trained on, and whether the run's copy of it was made from weights that were whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from pitstop.configs.errors import ModelError
from pitstop.configs.schema import Settings
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.family import Family
from pitstop.trainers.models.fit import UnfitWeights
from pitstop.trainers.models.source import KnownBase, ModelSource


def is_base(source: ModelSource, settings: Settings, precision: Precision, digest: str) -> bool:
    """Whether the files are those of the base ``digest``, in whatever type the device computed in that it was made on."""
    recipe = BaseRecipe.from_settings(settings, precision)
    types = (torch.bfloat16, torch.float16, torch.float32)
    return digest in [source.digest(dataclasses.replace(recipe, compute=dtype).as_dict()) for dtype in types]


def check_origin(family: Family, settings: Settings, known_base: KnownBase | None, precision: Precision, digest: str) -> None:
    """Raises ``UnfitWeights`` where a run's copy of the base ``digest`` has random weights, which earlier versions put in place of missing ones.

    Known for sure where the directory that it was made from is still here, as it was, and does not fit. Only then is it hashed.
    """
    if settings.model.from_run is not None or not Path(str(settings.model.id)).expanduser().is_dir():
        return
    try:
        source = family.find(settings, known_base)
    except ModelError:  # nothing was ever trained on that, and the copy does without
        return
    try:
        family.check(source, lambda notice: None)
    except UnfitWeights as error:
        if is_base(source, settings, precision, digest):
            raise UnfitWeights(
                f"The run's copy of its base was stored with random weights in place of what was missing. {error.message}",
                hint="Delete the run, and train again on a model that is whole (docs/troubleshooting.md).",
            ) from error
    except ModelError:  # a file is damaged by now: as above
        return
