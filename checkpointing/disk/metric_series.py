"""One metric over the steps: the points that the rows of ``metrics.jsonl`` hold, for whoever draws or compares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Points = list[tuple[float, float]]

_STEEP = 30.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis, or its tail would lie on the floor."""

_ABSURD = 1e100


def points(rows: Iterable[Mapping[str, Any]], key: str) -> Points:
    """(step, value) in the order of steps; rows without a finite value, such as null for NaN, are left out."""
    pairs = [(finite_number(row.get("step")), finite_number(row.get(key))) for row in rows]
    return sorted((step, value) for step, value in pairs if step is not None and value is not None)


def finite_number(value: Any) -> float | None:
    """``value`` if it is a number that can be drawn; None for anything else."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < _ABSURD else None  # false for NaN


def is_steep(values: Sequence[float]) -> bool:
    """Whether the values want a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _STEEP
