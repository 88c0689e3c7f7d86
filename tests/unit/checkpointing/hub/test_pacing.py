from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.checkpointing.hub.pacing import HOUR_S, MOST_TOGETHER, Backoff, CommitBudget


def test_pauses_double_up_to_five_minutes_and_half_of_each_is_drawn() -> None:
    shortest, longest = Backoff(2.0, min), Backoff(2.0, max)
    assert [longest.next_s() for _ in range(10)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert [shortest.next_s() for _ in range(10)] == [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]


def test_no_number_of_failures_is_too_many() -> None:
    backoff = Backoff(0.001, max)
    assert [backoff.next_s() for _ in range(5000)][-1] == 300


def test_without_a_draw_of_ones_own_pauses_differ_within_the_bounds() -> None:
    pauses = [Backoff(2.0).next_s() for _ in range(200)]
    assert 1.0 <= min(pauses) < 1.2 < 1.8 < max(pauses) <= 2.0


def test_a_server_that_asks_for_patience_gets_it_up_to_the_cap() -> None:
    backoff = Backoff(2.0, max)
    assert backoff.next_s(30.0) == 30.0
    assert backoff.next_s(1.0) == 4.0, "never less than our own pause"
    assert backoff.next_s(0.0) == 8.0
    assert backoff.next_s(86_400.0) == 300.0


def test_success_begins_anew() -> None:
    backoff = Backoff(2.0, max)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 2.0


def test_the_first_half_of_the_budget_goes_as_it_comes_and_the_rest_is_spread_over_the_hour() -> None:
    budget = CommitBudget(4)
    assert budget.wait_s([], 0.0) == 0.0
    assert budget.wait_s([0.0], 10.0) == 0.0
    # Two of four are used; the oldest leaves at 3600, two are left for the 3580 seconds until then.
    assert budget.wait_s([0.0, 20.0], 20.0) == pytest.approx(20 + 3580 / 2 - 20)
    assert budget.wait_s([0.0, 20.0], 20.0 + 3600 / 2) == 0.0
    # Three used: one left for the 1600 seconds until the oldest leaves.
    assert budget.wait_s([0.0, 20.0, 2000.0], 2000.0) == pytest.approx(1600.0)
    assert budget.wait_s([0.0, 20.0, 2000.0, 3000.0], 3000.0) == pytest.approx(600.0), "all used"
    assert budget.wait_s([0.0, 20.0, 2000.0, 3000.0], 3600.0) == 0.0, "one is free, and 20 seconds are left until the next"
    assert budget.wait_s([0.0, 20.0], 3620.0) == 0.0


def test_a_budget_of_one_is_one_an_hour() -> None:
    budget = CommitBudget(1)
    assert budget.wait_s([], 5.0) == 0.0
    assert budget.wait_s([5.0], 5.0) == HOUR_S
    assert budget.wait_s([5.0], 5.0 + HOUR_S) == 0.0


def test_a_limit_that_was_lowered_waits_until_enough_commits_have_left() -> None:
    assert CommitBudget(2).wait_s([0.0, 10.0, 20.0, 30.0], 40.0) == 3580.0, "20 must leave, so that 30 is the only one"


@given(st.integers(1, 12), st.lists(st.floats(0, 2000), min_size=1, max_size=60))
def test_there_are_never_more_commits_in_an_hour_than_allowed(per_hour: int, pauses: list[float]) -> None:
    budget, made, now = CommitBudget(per_hour), [], 0.0
    for pause in pauses:
        now += pause
        while (wait := budget.wait_s(made, now)) > 0:
            now += max(wait, 1e-6)
        made.append(now)
    for first, beyond in zip(made, made[per_hour:], strict=False):
        assert beyond - first >= HOUR_S - 1e-3


def test_checkpoints_go_one_by_one_until_the_budget_is_short_or_too_small_for_them() -> None:
    budget = CommitBudget(10)
    assert budget.together(0, [], 0.0) == 0
    assert budget.together(3, [], 0.0) == 1
    assert budget.together(10, [], 0.0) == 1
    assert budget.together(11, [], 0.0) == 11, "more wait than may be committed"
    assert budget.together(7, [0.0] * 4, 1.0) == 7, "six are left"
    assert budget.together(6, [0.0] * 4, 1.0) == 1
    assert budget.together(3, [0.0] * 5, 1.0) == 3, "half is used"
    assert budget.together(3, [0.0] * 5, HOUR_S) == 1, "an hour later they no longer count"
    assert budget.together(100, [0.0] * 5, 1.0) == MOST_TOGETHER


def test_commits_ahead_of_the_clock_count_as_of_now() -> None:
    assert CommitBudget(4).recent([50.0, 5000.0], 100.0) == [50.0, 100.0]
