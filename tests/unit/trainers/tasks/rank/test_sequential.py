"""The recurrent retriever: what it learns, and that padding is no item."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pitstop.trainers.tasks.rank import retrievers, sequential
from pitstop.trainers.tasks.rank.histories import UserHistories

Make = Callable[..., UserHistories]


def _cycle(make: Make, users: int = 40, items: int = 12) -> UserHistories:
    """Whoever took an item takes the next number next."""
    return make([[(user + place) % items for place in range(8)] for user in range(users)], items)


def _quiet(text: str) -> None:
    del text


def test_the_network_learns_what_comes_next(make_sequences: Make) -> None:
    sequences = _cycle(make_sequences)
    said: list[str] = []
    network = sequential.train_sequential(sequences, seed=1, epochs=30, say=said.append)
    items, _ = retrievers.top(network, [sequences.history(user, "test") for user in range(40)], 3)
    found = np.mean([items[user, 0] == sequences.target(user, "test") for user in range(40)])
    assert found > 0.9
    assert len(said) == 2 and "the best of its passes" in said[1]


def test_training_is_a_function_of_the_seed_and_leaves_the_generator_alone(make_sequences: Make) -> None:
    sequences = _cycle(make_sequences)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (
        sequential.train_sequential(sequences, seed=seed, epochs=3, say=_quiet).scores([np.array([0, 1])]) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_padding_changes_no_score_and_is_no_item(make_sequences: Make) -> None:
    sequences = _cycle(make_sequences)
    network = sequential.train_sequential(sequences, seed=1, epochs=1, say=_quiet)
    short, long = np.array([3]), np.array([0, 1, 2, 3, 4, 5])
    together = network.scores([short, long])
    assert together.shape == (2, 12)
    assert together[0] == pytest.approx(network.scores([short])[0], abs=1e-6)


@pytest.mark.parametrize("all_items", [4096, 6])
def test_padding_is_not_learnt(monkeypatch: pytest.MonkeyPatch, all_items: int) -> None:
    """The loss of a long and a short window together is the mean over their five and two real predictions."""
    monkeypatch.setattr(sequential, "ALL_ITEMS", all_items)
    torch.manual_seed(1)
    network = sequential.Gru(12).eval()
    windows = [np.array([0, 3, 5, 7, 9, 11]), np.array([4, 2, 1])]
    together, long, short = (
        float(sequential._loss(network, chosen, 1, 1, 0).detach()) for chosen in (windows, windows[:1], windows[1:])
    )
    assert together == pytest.approx((5 * long + 2 * short) / 7, rel=1e-5)


def test_many_items_are_learnt_against_a_sample(make_sequences: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = _cycle(make_sequences)
    monkeypatch.setattr(sequential, "ALL_ITEMS", 6)
    network = sequential.train_sequential(sequences, seed=1, epochs=40, say=_quiet)
    items, _ = retrievers.top(network, [sequences.history(user, "test") for user in range(40)], 3)
    assert np.mean([items[user, 0] == sequences.target(user, "test") for user in range(40)]) > 0.8
