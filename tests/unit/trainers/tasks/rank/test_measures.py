"""Metrics of ranks, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.tasks.rank.measures import CUTOFFS, NAMES, mean_measures, rank_of, report


def test_ranks_one_three_and_a_miss() -> None:
    found = mean_measures([1, 3, None])
    assert found["recall@5"] == pytest.approx(2 / 3)
    assert found["mrr@5"] == pytest.approx((1 + 1 / 3) / 3)
    assert found["ndcg@5"] == pytest.approx((1 + 1 / 2) / 3)
    assert [round(found[f"{name}@5"], 3) for name in ("recall", "mrr", "ndcg")] == [0.667, 0.444, 0.5]


def test_a_rank_behind_the_cutoff_is_a_miss() -> None:
    found = mean_measures([6])
    assert (found["recall@5"], found["mrr@5"], found["ndcg@5"]) == (0, 0, 0)
    assert (found["recall@10"], found["mrr@10"], found["ndcg@10"]) == (1, 1 / 6, 1 / math.log2(7))


def test_overall_is_the_subset_times_the_share() -> None:
    """Users whose target was not retrieved count as misses: three retrieved users of five."""
    ranks = [1, 2, 7]
    found = report(mean_measures(ranks), 3 / 5)
    everybody = mean_measures([*ranks, None, None])
    assert set(found) == set(NAMES)
    for name, value in everybody.items():
        assert found[name] == pytest.approx(value)
        assert found[f"retrieved_{name}"] == pytest.approx(value * 5 / 3)
    assert found["retrieved_share"] == 3 / 5


def test_no_users_give_zeros() -> None:
    assert set(mean_measures([]).values()) == {0.0}


@given(st.lists(st.one_of(st.none(), st.integers(1, 30)), min_size=1, max_size=30), st.randoms())
def test_the_order_of_users_does_not_matter_and_larger_cutoffs_never_give_less(ranks: list[int | None], rng: object) -> None:
    found = mean_measures(ranks)
    assert mean_measures(ranks[::-1]) == found
    for name in ("recall", "mrr", "ndcg"):
        values = [found[f"{name}@{k}"] for k in CUTOFFS]
        assert values == sorted(values)
        assert values[-1] <= found["recall@20"]


def test_the_rank_is_that_of_the_score_and_equals_count_against_it() -> None:
    assert rank_of([0.1, 0.9, 0.5], 1) == 1
    assert rank_of([0.1, 0.9, 0.5], 0) == 3
    assert rank_of([0.5, 0.5, 0.1], 0) == 2
    assert rank_of([math.nan, 0.5, 0.1], 0) == 3, "what is not a number is no success"
    assert rank_of([math.nan, 0.5, 0.1], 1) == 2
