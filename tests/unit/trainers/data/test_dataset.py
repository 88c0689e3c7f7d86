"""Data sets: nothing is cut, everything is counted, and any change shows in the fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example

Make = Callable[..., Dataset]


def test_packed_sequences_and_their_sums(make_dataset: Make, make_examples: Callable[..., list[Example]]) -> None:
    examples = make_examples([1 + n for n in range(1, 8)])
    data = make_dataset(examples, max_length=10, packing=True)
    assert sorted(id(e) for e in data.sequence_examples(range(len(data)))) == sorted(id(e) for e in examples)
    for ids in ([0], [1, 2], list(range(len(data)))):
        chosen = data.sequence_examples(ids)
        assert data.tokens(np.array(ids)) == sum(len(e) for e in chosen)
        assert data.supervised_tokens(np.array(ids)) == sum(int(e.supervised.sum()) for e in chosen)
    assert len(data) < len(make_dataset(examples, max_length=10)) == 7


def _example(*tokens: int, learn: tuple[int, ...] = (-1,)) -> Example:
    supervised = np.zeros(len(tokens), dtype=bool)
    supervised[list(learn)] = True
    return Example(np.array(tokens, dtype=np.int32), supervised)


BASE = [_example(5, 6, 7), _example(8, 9, learn=(1,))]


@pytest.mark.parametrize(
    ("examples", "options"),
    [
        ([_example(5, 6, 8), BASE[1]], {}),
        ([_example(5, 6, 7 + 65536), BASE[1]], {}),
        ([_example(5, 6, 7, learn=(1, 2)), BASE[1]], {}),
        ([_example(5, 6, 7, learn=(1,)), BASE[1]], {}),
        ([_example(5, 6), _example(7, 8, 9)], {}),
        ([BASE[1], BASE[0]], {}),
        ([*BASE, BASE[1]], {}),
        (BASE[:1], {}),
        (BASE, {"packing": False}),
        (BASE, {"max_length": 65}),
    ],
)
def test_any_change_changes_the_fingerprint(make_dataset: Make, examples: list[Example], options: dict[str, Any]) -> None:
    before = make_dataset(BASE, max_length=64, packing=True).fingerprint
    assert make_dataset(examples, **{"max_length": 64, "packing": True, **options}).fingerprint != before


def test_equal_data_has_an_equal_fingerprint_that_never_changes(make_dataset: Make) -> None:
    again = [_example(5, 6, 7), _example(8, 9, learn=(1,))]
    fingerprint = make_dataset(again, max_length=64, packing=True).fingerprint
    assert fingerprint == make_dataset(BASE, max_length=64, packing=True).fingerprint
    assert fingerprint == "b348ccf87bbf57f5295119a5c0e7eeb0b4fe9dc349af2ee49f46e2d7a479b78d"
    unpacked = [make_dataset(BASE, max_length=n, packing=False).fingerprint for n in (64, 65)]
    assert unpacked[0] == unpacked[1]  # without packing the limit shapes no batch
