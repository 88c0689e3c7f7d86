"""An exponential moving average of the trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn


class Ema:
    """After each optimizer step ``average ← decay · average + (1 − decay) · weights``, from the weights that training starts with.

    This is Tarvainen and Valpola 2017 (Mean teachers), section 2, without a ramp of the decay; an average of iterates after
    Polyak and Juditsky 1992. Each average has the type and shape of its parameter.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        """``parameters`` by name; ``decay`` between 0 and 1, both excluded."""
        self.decay = decay
        self._parameters = list(parameters.values())
        self._averages = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of the step that was just made into the average."""
        torch._foreach_mul_(self._averages, self.decay)
        torch._foreach_add_(self._averages, [parameter.detach() for parameter in self._parameters], alpha=1.0 - self.decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the average stand for the weights while inside. Nothing is copied; what took the tensors' memory meanwhile has the average's."""
        weights = [parameter.data for parameter in self._parameters]
        for parameter, average in zip(self._parameters, self._averages, strict=True):
            parameter.data = average
        try:
            yield
        finally:
            for parameter, weight in zip(self._parameters, weights, strict=True):
                parameter.data = weight
