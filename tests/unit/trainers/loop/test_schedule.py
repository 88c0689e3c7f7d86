"""Learning rates worked out by hand."""

from __future__ import annotations

from math import cos, pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.loop.schedule import SHAPES, learning_rate


def _rates(total: int, warmup_ratio: float, shape: str) -> list[float]:
    return [learning_rate(step, peak=1.0, total=total, warmup_ratio=warmup_ratio, shape=shape) for step in range(total)]


def test_linear_with_two_steps_of_warm_up() -> None:
    assert _rates(6, 0.3, "linear") == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_cosine_with_two_steps_of_warm_up() -> None:
    half = 0.5**0.5
    assert _rates(6, 0.3, "cosine") == pytest.approx([0.5, 1.0, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2])


def test_constant_with_two_steps_of_warm_up() -> None:
    assert _rates(6, 0.3, "constant") == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0])


def test_cosine_without_warm_up_and_with_a_peak() -> None:
    rates = [learning_rate(s, peak=3e-4, total=4, warmup_ratio=0.0, shape="cosine") for s in range(4)]
    assert rates == pytest.approx([3e-4 * (1 + cos(pi * s / 4)) / 2 for s in range(4)])
    assert rates[0] == 3e-4 and rates[2] == pytest.approx(1.5e-4)


@pytest.mark.parametrize(
    ("total", "ratio", "steps"), [(70, 0.1, 7), (10, 0.1, 1), (11, 0.1, 2), (1, 0.1, 1), (30, 0.1, 3), (100, 0.0, 0)]
)
def test_warm_up_is_rounded_up_but_not_for_a_float_that_is_a_hair_too_large(total: int, ratio: float, steps: int) -> None:
    rates = _rates(total, ratio, "linear")
    assert rates[:steps] == pytest.approx([(step + 1) / steps for step in range(steps)])
    assert sum(rate == 1.0 for rate in rates) == min(total, 1 + (steps > 0))  # the last of the warm-up and the first after


@given(total=st.integers(1, 500), ratio=st.floats(0.0, 0.99), shape=st.sampled_from(sorted(SHAPES)), peak=st.floats(1e-8, 10.0))
def test_rates_rise_to_the_peak_then_never_rise_again_and_are_never_zero(
    total: int, ratio: float, shape: str, peak: float
) -> None:
    rates = [learning_rate(s, peak=peak, total=total, warmup_ratio=ratio, shape=shape) for s in range(total)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(peak)
    assert all(rate > 0 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
