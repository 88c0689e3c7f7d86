"""Holding out a share for evaluation: nothing is lost, articles stay whole, and the seed decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import InMemory
from pitstop.trainers.data.mixture import Mixture
from pitstop.trainers.data.splits import hold_out

Make = Callable[..., Dataset]


def _example(*ids: int) -> Example:
    return Example(np.array(ids, dtype=np.int32), np.array([False] + [True] * (len(ids) - 1)))


def _dataset(examples: list[Example]) -> Dataset:
    return Dataset(examples, max_length=64, packing=False, counts=Counts.of(InMemory(examples)))


@given(total=st.integers(2, 30), fraction=st.floats(0.001, 0.5), seed=st.integers(0, 2**32 - 1))
def test_holding_out_loses_nothing(total: int, fraction: float, seed: int) -> None:
    examples = [_example(n + 3, 2) for n in range(total)]
    counts = Counts(total, total, 0, 0, (), 2 * total, total)
    data = Dataset(examples, max_length=8, packing=True, counts=counts)
    train, held = hold_out(data, fraction, seed=seed, max_length=8, packing=True)
    tokens = [[int(e.input_ids[0]) for e in part.examples] for part in (train, held)]
    assert sorted(tokens[0] + tokens[1]) == list(range(3, total + 3))
    assert tokens[0] == sorted(tokens[0]) and tokens[1] == sorted(tokens[1])
    assert len(tokens[1]) == min(total - 1, max(1, round(total * fraction)))
    assert train.counts.used == len(tokens[0]) and held.counts.supervised_tokens == len(tokens[1])
    again = hold_out(data, fraction, seed=seed, max_length=8, packing=True)
    assert [part.fingerprint for part in again] == [train.fingerprint, held.fingerprint]


def test_what_is_held_out_depends_on_the_seed(make_dataset: Make) -> None:
    data = make_dataset([_example(n + 3, 2) for n in range(30)])
    parts = {hold_out(data, 0.2, seed=seed, max_length=64, packing=False)[1].fingerprint for seed in range(5)}
    assert len(parts) == 5


def test_one_record_cannot_be_shared_out(make_dataset: Make) -> None:
    with pytest.raises(DataError, match="at least two records"):
        hold_out(make_dataset([_example(5, 6, 7)]), 0.5, seed=0, max_length=64, packing=False)


def test_holding_out_keeps_count_of_what_was_left_out() -> None:
    examples = [Example(np.arange(n, dtype=np.int32), np.array([False] + [True] * (n - 1))) for n in (3, 4, 5, 6)]
    counts = Counts(records=7, used=4, too_long=2, bad=1, bad_reasons=("why",), tokens=18, supervised_tokens=14)
    dataset = Dataset(examples, max_length=8, packing=False, counts=counts)
    train, held = hold_out(dataset, 0.25, seed=1, max_length=8, packing=False)
    assert (train.counts.records, train.counts.used, train.counts.too_long, train.counts.bad) == (6, 3, 2, 1)
    assert (held.counts.records, held.counts.used, held.counts.too_long, held.counts.bad) == (1, 1, 0, 0)
    assert train.counts.tokens + held.counts.tokens == 18


@pytest.mark.parametrize("seed", range(5))
def test_examples_of_one_article_never_straddle_the_split(make_examples: Callable[..., list[Example]], seed: int) -> None:
    articles = ["a", "b", "a", "", "c", "b", "", "a"]
    examples = [replace(e, group=article) for e, article in zip(make_examples(range(4, 12)), articles, strict=True)]
    data = Dataset(examples, max_length=16, packing=False, counts=Counts(8, 8, 0, 0, (), 60, 20))
    train, held = hold_out(data, 0.4, seed=seed, max_length=16, packing=False)
    named = [{e.group for e in part.examples if e.group} for part in (train, held)]
    assert not named[0] & named[1] and len(train.examples) + len(held.examples) == 8
    assert len({e.group or len(e) for e in held.examples}) == 2  # 0.4 of five groups, the two without a name counted each


def test_holding_out_takes_the_same_examples_as_of_one_file_and_keeps_groups_together(
    make_examples: Callable[..., list[Example]],
) -> None:
    groups = ["x", "", "y", "", "x", "z", "", "y", "", ""]
    examples = [replace(e, group=group) for e, group in zip(make_examples(range(4, 14)), groups, strict=True)]
    one = _dataset(examples)
    parts = [_dataset(examples[:6]), _dataset(examples[6:])]
    for seed in range(6):
        options: dict[str, Any] = {"seed": seed, "max_length": 64, "packing": False}
        train, held = hold_out(Mixture(parts, ["a", "b"], [1, 2]), 0.3, **options)
        alone = hold_out(one, 0.3, **options)
        for part, other in zip((train, held), alone, strict=True):
            assert [len(e) for e in part.examples] == [len(e) for e in other.examples]
        assert isinstance(train, Mixture) and train.weights == (1, 2) and train.names == ("a", "b")
        assert not {e.group for e in train.examples if e.group} & {e.group for e in held.examples if e.group}


def test_where_nothing_is_left_to_train_on_of_a_source_holding_out_says_so() -> None:
    data = Mixture([_dataset([_example(3, 2)]), _dataset([_example(4, 2)])], ["d0", "d1"])
    with pytest.raises(DataError, match=r"EVAL_FRACTION holds out all there is of d[01]"):
        hold_out(data, 0.5, seed=0, max_length=64, packing=False)
