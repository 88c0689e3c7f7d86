"""Settings and sequences for the tests of ranking, and a cache of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pitstop.configs.load import load_settings
from pitstop.configs.paths import cache_directory
from pitstop.configs.schema import Settings
from pitstop.trainers.tasks.rank.histories import UserHistories
from pitstop.trainers.tasks.rank.task import RankTask
from support.rating_files import write_movielens

_REAL_CACHE = cache_directory()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where candidates are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pitstop" / "rank"


@pytest.fixture
def ml_100k() -> Path:
    """MovieLens 100K, which ``python -m benchmarks.rank`` puts into the cache; elsewhere the test is skipped."""
    directory = _REAL_CACHE / "data" / "ml-100k"
    if not (directory / "ml-100k.inter").is_file():
        pytest.skip("MovieLens 100K is not in the cache: run `python -m benchmarks.rank`")
    return directory


@pytest.fixture
def rank_settings() -> Callable[..., Settings]:
    """Settings of the task rank, small ones; ``history=3`` sets ``rank.history``, dotted paths set the rest."""

    def make(other: dict[str, Any] | None = None, **rank: Any) -> Settings:
        small = {"candidates": 5, "history": 4, "title_tokens": 12, "retriever": "popularity", **rank}
        flags: dict[str, Any] = {"model.id": "tiny", "data.train": ["films"], "training.task": "rank", "data.max_length": 300}
        flags |= {f"rank.{name}": value for name, value in small.items()} | (other or {})
        return load_settings(flags=flags, environ={}).settings

    return make


@pytest.fixture
def make_sequences() -> Callable[..., UserHistories]:
    """Sequences as they are given: one list of item numbers a user."""

    def make(lists: Sequence[Sequence[int]], items: int | None = None) -> UserHistories:
        flat = np.array([item for one in lists for item in one], dtype=np.int32)
        offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
        count = items or int(flat.max()) + 1
        return UserHistories([f"u{n}" for n in range(len(lists))], [f"Film {n}" for n in range(count)], offsets, flat)

    return make


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Thirty users with eight films each, of twenty-four."""
    return write_movielens(tmp_path / "films")


@pytest.fixture
def make_task(tokenizer: Any, rank_settings: Callable[..., Settings]) -> Callable[..., RankTask]:
    """Makes the task with small settings."""
    return lambda other=None, **rank: RankTask(tokenizer, rank_settings(other, **rank))
