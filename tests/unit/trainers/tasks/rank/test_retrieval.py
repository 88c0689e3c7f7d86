"""Stage one: what each retriever finds, and that it is found once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.schema import Settings
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.rank import retrieval, retrievers, sequential
from pitstop.trainers.tasks.rank.histories import UserHistories, build_histories
from pitstop.trainers.tasks.rank.measures import mean_measures
from pitstop.trainers.tasks.rank.reading import read_ratings
from pitstop.trainers.tasks.rank.retrieval import Retrieved, retrieve

Make = Callable[..., UserHistories]


class Fixed:
    """A retriever with the same scores for everybody."""

    def __init__(self, *scores: float) -> None:
        self.row = np.array(scores, dtype=np.float32)

    def scores(self, histories: Any) -> np.ndarray:
        return np.repeat(self.row[None], len(histories), axis=0)


def _cycle(make: Make, users: int = 40, items: int = 12) -> UserHistories:
    """Whoever took an item takes the next number next."""
    return make([[(user + place) % items for place in range(8)] for user in range(users)], items)


def _quiet(text: str) -> None:
    del text


def test_the_best_unseen_items_come_first_and_equals_in_the_order_of_items() -> None:
    items, scores = retrievers.top(Fixed(1, 5, 3, 3, 5, 0), [np.array([4]), np.array([1, 2, 3, 4])], 3)
    assert items.tolist() == [[1, 2, 3], [0, 5, -1]]
    assert scores.tolist() == [[5, 3, 3], [1, 0, 0]]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.sets(st.integers(0, 29), min_size=1), st.integers(1, 12))
def test_what_is_found_is_what_sorting_everything_would_give(scores: list[int], seen: set[int], count: int) -> None:
    history = np.array([item for item in seen if item < len(scores)], dtype=np.int32)
    found = retrievers.top(Fixed(*scores), [history], count)[0][0].tolist()
    unseen = [item for item in range(len(scores)) if item not in history]
    wanted = sorted(unseen, key=lambda item: -scores[item])[:count]
    assert found == wanted + [-1] * (count - len(wanted))


def test_popularity_counts_the_training_part_alone(make_sequences: Make) -> None:
    sequences = make_sequences([[0, 1, 2, 2], [0, 3, 2, 2], [0, 1, 3, 3]])
    assert retrievers.Popularity(sequences).scores([np.array([0])]).tolist() == [[3.0, 2.0, 0.0, 1.0]]


def test_similarity_of_items_is_the_cosine_of_their_users(make_sequences: Make) -> None:
    """Items 0 and 1 share two of three and two users: 2/√6. Items 0 and 2 share one of three and one: 1/√3."""
    sequences = make_sequences([[0, 1, 9, 9], [1, 0, 9, 9], [0, 2, 9, 9], [3, 4, 9, 9]], 10)
    near = retrievers.ItemNeighbours(sequences)
    scores = near.scores([np.array([0]), np.array([2, 0])])
    assert scores[0, [1, 2, 3, 9]] == pytest.approx([2 / 6**0.5, 1 / 3**0.5, 0, 0])
    assert scores[1, 1] == pytest.approx(2 / 6**0.5), "the last item of the history counts whole"
    assert scores[1, 0] == pytest.approx(1 / 3**0.5 / 2), "the last but one half"


def test_a_repeated_item_counts_once_for_its_user(make_sequences: Make) -> None:
    near = retrievers.ItemNeighbours(make_sequences([[0, 0, 1, 5, 5], [1, 2, 5, 5]], 6))
    assert near.scores([np.array([0])])[0, 1] == pytest.approx(1 / 2**0.5)


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


def test_candidates_are_found_once_and_then_read(
    make_sequences: Make, rank_settings: Callable[..., Settings], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences, settings = _cycle(make_sequences), rank_settings(retriever="gru", retriever_epochs=2).rank
    first = retrieve(sequences, settings, 1, _quiet)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(retrievers, "fit", lambda *_, **__: pytest.fail("trained again"))
    second = retrieve(sequences, settings, 1, _quiet)
    assert second.to_bytes() == first.to_bytes()
    for split in ("validation", "test"):
        for user in range(40):
            assert not set(second.items[split][user].tolist()) & set(sequences.history(user, split).tolist())


def test_whatever_changes_the_candidates_changes_the_fingerprint(
    make_sequences: Make, rank_settings: Callable[..., Settings]
) -> None:
    sequences = _cycle(make_sequences)
    variants: list[dict[str, Any]] = [{}, {"candidates": 6}, {"retriever": "itemknn"}, {"eval_users": 7}, {"retriever_epochs": 3}]
    prints = [retrieval.fingerprint(sequences, rank_settings(**variant).rank, 1) for variant in variants]
    prints.append(retrieval.fingerprint(sequences, rank_settings().rank, 2))
    prints.append(retrieval.fingerprint(_cycle(make_sequences, items=11), rank_settings().rank, 1))
    assert len(set(prints)) == len(prints)
    same = rank_settings(history=2, title_tokens=3, max_train_rows=9).rank  # these change prompts, not candidates
    assert retrieval.fingerprint(sequences, same, 1) == prints[0]


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "text", "other"])
def test_a_damaged_file_is_never_used(
    make_sequences: Make, rank_settings: Callable[..., Settings], cache: Path, harm: str
) -> None:
    sequences, settings = _cycle(make_sequences), rank_settings().rank
    good = retrieve(sequences, settings, 1, _quiet).to_bytes()
    (path,) = cache.iterdir()
    harmed = bytearray(good)
    harmed[-1] ^= 1
    from safetensors.numpy import save

    contents = {
        "flip": bytes(harmed),
        "cut": good[:-7],
        "empty": b"",
        "text": b"hello " * 30,
        "other": save({"users": np.zeros(3)}),
    }
    path.write_bytes(contents[harm])
    said: list[str] = []
    assert retrieve(sequences, settings, 1, said.append).to_bytes() == good
    assert "cannot be used" in said[0] and str(path) in said[0]
    assert path.read_bytes() == good


def test_a_cache_that_cannot_be_written_costs_no_start(
    make_sequences: Make, rank_settings: Callable[..., Settings], cache: Path
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the directory should be")
    said: list[str] = []
    found = retrieve(_cycle(make_sequences), rank_settings().rank, 1, said.append)
    assert len(found.users) == 40
    assert any("could not be kept" in line for line in said)


def test_only_as_many_users_as_asked_are_evaluated(make_sequences: Make, rank_settings: Callable[..., Settings]) -> None:
    sequences = _cycle(make_sequences)
    found = retrieve(sequences, rank_settings(eval_users=7).rank, 1, _quiet)
    assert len(found.users) == len(set(found.users.tolist())) == 7
    whole = retrieve(sequences, rank_settings().rank, 1, _quiet)
    assert whole.users.tolist() == list(range(40))
    for place, user in enumerate(found.users):
        assert found.items["test"][place].tolist() == whole.items["test"][user].tolist()


def test_bytes_come_back_as_they_were() -> None:
    items = {split: np.array([[n, -1]], dtype=np.int32) for n, split in enumerate(retrieval.EVALUATED)}
    scores = {split: np.array([[0.5, 0.0]], dtype=np.float32) for split in retrieval.EVALUATED}
    back = Retrieved.from_bytes(Retrieved(np.array([4]), items, scores).to_bytes())
    assert back.users.tolist() == [4]
    assert back.items["test"].tolist() == [[1, -1]]


def test_popularity_on_movielens_100k(ml_100k: Path) -> None:
    """The published numbers: all items ranked, those of the history left out, the last item to be found."""
    sequences = build_histories(read_ratings(str(ml_100k), BadRows(False)), min_interactions=5, name="ml-100k")
    users = range(len(sequences.user_ids))
    items, _ = retrievers.top(retrievers.Popularity(sequences), [sequences.history(user, "test") for user in users], 20)
    places = [np.flatnonzero(items[user] == sequences.target(user, "test")) for user in users]
    found = mean_measures([int(place[0]) + 1 if len(place) else None for place in places])
    assert round(found["recall@10"], 4) == 0.0498
    assert round(found["ndcg@10"], 4) == 0.0254
