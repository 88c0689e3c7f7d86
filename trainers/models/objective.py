"""What a training minimises, as the engine sees it: how sequences become tensors, and what each of their units costs.

A unit is what losses are averaged over: a supervised token of text, or an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pitstop.trainers.data.dataset import Sequences


@dataclass(frozen=True)
class Losses:
    """The units of one micro-batch, in the order of its sequences.

    ``per_unit``: the loss of each, float32, shape ``(units,)``. ``correct``: whether the likeliest answer is the right one, bool, same
    shape; None where answers are not right or wrong.
    """

    per_unit: torch.Tensor
    correct: torch.Tensor | None = None


class Objective(Protocol):
    """Turns sequences of a data set into losses. ``packing``: several records may share a sequence."""

    packing: bool

    def batch(self, data: Sequences, sequence_ids: np.ndarray, device: torch.device) -> Any:
        """The tensors of one micro-batch, in the objective's own form."""

    def losses(self, model: Any, batch: Any) -> Losses:
        """The losses to learn from; random numbers come from torch's own generators, whose state is part of a checkpoint."""

    def evaluated(self, model: Any, batch: Any) -> Losses:
        """The losses to judge by: the same whenever and however a data set is cut into batches."""

    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """What an evaluation logs, from mean loss and share of right answers."""
