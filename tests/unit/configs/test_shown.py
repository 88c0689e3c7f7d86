"""Sizes and durations in words."""

from __future__ import annotations

import pytest

from pitstop.configs.shown import human_duration, human_size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (9_856_614, "9.4 MiB"), (5 * 2**40, "5.0 TiB")]
)
def test_sizes_are_in_the_unit_a_person_would_choose(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (41.6, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_durations_are_said_as_a_person_would(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
