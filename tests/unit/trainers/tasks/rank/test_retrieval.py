"""Stage one: what each retriever finds, and that it is found once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pitstop.configs.schema import Settings
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.rank import retrieval, retrievers
from pitstop.trainers.tasks.rank.histories import UserHistories, build_histories
from pitstop.trainers.tasks.rank.measures import mean_measures
from pitstop.trainers.tasks.rank.reading import read_ratings
from pitstop.trainers.tasks.rank.retrieval import RetrievedCandidates, retrieve

Make = Callable[..., UserHistories]


def _cycle(make: Make, users: int = 40, items: int = 12) -> UserHistories:
    """Whoever took an item takes the next number next."""
    return make([[(user + place) % items for place in range(8)] for user in range(users)], items)


def _quiet(text: str) -> None:
    del text


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
    back = RetrievedCandidates.from_bytes(RetrievedCandidates(np.array([4]), items, scores).to_bytes())
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
