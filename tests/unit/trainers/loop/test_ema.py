"""The moving average: figures worked out by hand, and weights that are untouched by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pitstop.trainers.loop.ema import Ema


def _parameter(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value]))


def test_the_average_follows_the_formula() -> None:
    """Decay 0.75 from 4: 0.75·4 + 0.25·8 = 5; 0.75·5 + 0.25·0 = 3.75; 0.75·3.75 + 0.25·1 = 3.0625."""
    weight = _parameter(4.0)
    ema = Ema({"w": weight}, 0.75)
    for value, average in ((8.0, 5.0), (0.0, 3.75), (1.0, 3.0625)):
        with torch.no_grad():
            weight.fill_(value)
        ema.update()
        with ema.in_place():
            assert weight.item() == average
        assert weight.item() == value


def test_weights_come_back_after_an_error_and_in_the_same_memory() -> None:
    weight = _parameter(1.0)
    ema = Ema({"w": weight}, 0.5)
    with torch.no_grad():
        weight.fill_(3.0)
    ema.update()
    address = weight.data_ptr()
    with pytest.raises(ValueError, match="on the way"), ema.in_place():
        assert weight.item() == 2.0 and weight.data_ptr() != address
        raise ValueError("on the way")
    assert weight.item() == 3.0 and weight.data_ptr() == address


def test_what_is_written_into_the_average_in_place_stays_in_it() -> None:
    """How a resume restores it."""
    weight = _parameter(1.0)
    ema = Ema({"w": weight}, 0.5)
    with ema.in_place():
        live = weight.detach()
    live.fill_(7.0)
    assert weight.item() == 1.0
    ema.update()
    with ema.in_place():
        assert weight.item() == 4.0


def test_gradients_are_those_of_the_weights() -> None:
    weight = _parameter(3.0)
    ema = Ema({"w": weight}, 0.5)
    (weight * weight).sum().backward()
    assert weight.grad is not None and weight.grad.item() == 6.0
    with ema.in_place(), torch.no_grad():
        assert (weight * 2).item() == 6.0
    assert weight.grad.item() == 6.0
