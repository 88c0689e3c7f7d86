"""Mixing data sets: exact shares, every sequence as often as the others, an order that is a pure function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import InMemory
from pitstop.trainers.data.mixture import Mixture, describe_shares
from pitstop.trainers.data.order import permutation, shares, stream

Make = Callable[..., list[Example]]


def _dataset(examples: list[Example], *, packing: bool = False) -> Dataset:
    return Dataset(examples, max_length=64, packing=packing, counts=Counts.of(InMemory(examples)))


def _mixture(sizes: list[int], weights: list[float] | None = None) -> Mixture:
    parts = [
        _dataset([Example(np.array([100 * n + i, 2], np.int32), np.array([False, True])) for i in range(size)])
        for n, size in enumerate(sizes)
    ]
    return Mixture(parts, [f"d{n}" for n in range(len(sizes))], weights)


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([0.7, 0.3], 9, [6, 3]),  # 6.3 and 2.7: the larger remainder gets the ninth
        ([7, 3], 9, [6, 3]),
        ([0.1, 0.1, 0.1], 10, [4, 3, 3]),  # equal remainders: the first; as binary numbers their sum would not be 0.3
        ([1, 1], 3, [2, 1]),
        ([1e-6, 1], 10, [0, 10]),
        ([47, 16, 15.8, 12, 6.1, 3.1], 100, [47, 16, 16, 12, 6, 3]),
    ],
)
def test_shares_by_largest_remainder_by_hand(weights: list[float], total: int, expected: list[int]) -> None:
    assert shares(weights, total) == expected


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), st.integers(1, 10_000))
def test_shares_add_up_and_are_off_by_less_than_one(weights: list[float], total: int) -> None:
    found = shares(weights, total)
    assert sum(found) == total
    whole = sum(Fraction(weight) for weight in weights)
    assert all(abs(count - total * Fraction(weight) / whole) < 1.001 for count, weight in zip(found, weights, strict=True))


@given(st.integers(1, 40), st.integers(0, 60), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_stream_of_a_source_takes_all_of_it_before_any_of_it_again(count: int, share: int, epochs: int, seed: int) -> None:
    taken = [stream(count, share, seed=seed, epoch=epoch, source=1) for epoch in range(epochs)]
    assert [len(part) for part in taken] == [share] * epochs
    whole = np.concatenate(taken)
    for start in range(0, len(whole), count):
        one_pass = whole[start : start + count]
        assert len(set(one_pass.tolist())) == len(one_pass)
        if len(one_pass) == count:
            assert sorted(one_pass.tolist()) == list(range(count))


def test_the_stream_is_the_passes_one_after_the_other_and_never_changes() -> None:
    whole = stream(5, 20, seed=3, epoch=0, source=2)
    pieces = [stream(5, 4, seed=3, epoch=epoch, source=2) for epoch in range(5)]
    assert np.concatenate(pieces).tolist() == whole.tolist()
    assert whole.tolist() == [2, 1, 3, 4, 0, 3, 2, 4, 1, 0, 4, 3, 1, 0, 2, 2, 0, 4, 1, 3]
    assert stream(5, 20, seed=3, epoch=0, source=1).tolist() != whole.tolist()
    assert stream(5, 20, seed=4, epoch=0, source=2).tolist() != whole.tolist()


def test_without_weights_each_sequence_comes_once_an_epoch_in_the_order_of_a_single_source() -> None:
    data = _mixture([5, 3, 1])
    for epoch in range(3):
        assert data.order(seed=7, epoch=epoch).tolist() == permutation(9, seed=7, epoch=epoch).tolist()


def test_with_weights_an_epoch_has_each_sources_share_mixed_through() -> None:
    data = _mixture([50, 10], [1, 1])
    orders = [data.order(seed=1, epoch=epoch) for epoch in range(4)]
    for order in orders:
        sources = data.sources_of(order)
        assert len(order) == len(data) == 60 and Counter(sources.tolist()) == {0: 30, 1: 30}
        assert len(set(sources[:20].tolist())) == 2  # not one source after the other
    assert len({tuple(order.tolist()) for order in orders}) == 4
    times = Counter(np.concatenate(orders).tolist())  # 120 draws of each source
    assert {times[n] for n in range(50)} == {2, 3} and {times[n] for n in range(50, 60)} == {12}
    assert data.order(seed=1, epoch=2).tolist() == orders[2].tolist()


def test_a_sequence_holds_examples_of_one_source(make_examples: Make) -> None:
    parts = [_dataset(make_examples([9, 20, 5, 7], seed=seed), packing=True) for seed in (1, 2)]
    data = Mixture(parts, ["a", "b"])
    for number in range(len(data)):
        source = data.sources_of(np.array([number]))[0]
        own = [e.input_ids.tobytes() for e in parts[source].examples]
        assert all(e.input_ids.tobytes() in own for e in data.sequence_examples([number]))
    found = [e.input_ids.tobytes() for e in data.sequence_examples(range(len(data)))]
    assert sorted(found) == sorted(e.input_ids.tobytes() for part in parts for e in part.examples)
    ids = np.arange(len(data))
    assert data.tokens(ids) == 82 and data.supervised_in(ids).sum() == data.counts.supervised_tokens
    assert [len(batch) for batch in data.batches(64)] == [len(part) for part in parts]


def test_the_fingerprint_follows_from_parts_order_and_shares() -> None:
    def of(sizes: list[int], weights: list[float] | None = None) -> str:
        return _mixture(sizes, weights).fingerprint

    assert of([6, 4], [0.7, 0.3]) == of([6, 4], [7, 3])
    others = [of([6, 4]), of([4, 6]), of([6, 4], [0.7, 0.3]), of([6, 4], [0.3, 0.7]), of([6, 4], [0.6, 0.4]), of([6, 3])]
    assert len(set(others)) == len(others)


def test_tokens_of_an_epoch_follow_the_weights(make_examples: Make) -> None:
    parts = [_dataset(make_examples([10] * 6)), _dataset(make_examples([20] * 2))]
    assert Mixture(parts, ["a", "b"]).tokens_per_epoch == 100
    assert Mixture(parts, ["a", "b"], [1, 1]).tokens_per_epoch == 4 * 10 + 4 * 20


def test_counts_add_up_and_the_first_reasons_stay() -> None:
    parts = [_dataset([Example(np.array([1, 2], np.int32), np.array([False, True]))]) for _ in range(2)]
    for part, reasons in zip(parts, (("a", "b"), ("c", "d")), strict=True):
        part.counts = Counts(records=4, used=1, too_long=1, bad=2, bad_reasons=reasons, tokens=2, supervised_tokens=1)
    assert Mixture(parts, ["a", "b"]).counts == Counts(8, 2, 2, 4, ("a", "b", "c"), 4, 2)


def test_shares_are_told_of_a_mixture_alone() -> None:
    assert describe_shares(_mixture([6, 3], [0.5, 0.5])) == [
        "d0: 5 sequences an epoch (55.6 %) of 6",
        "d1: 4 sequences an epoch (44.4 %) of 3",
    ]
    assert describe_shares(_dataset([Example(np.array([1, 2], np.int32), np.array([False, True]))])) == []
