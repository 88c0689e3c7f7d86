"""The candidates that stage one found, computed once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pitstop.checkpointing.disk.storage import LocalStorage, atomic_write, make_directories
from pitstop.configs.paths import cache_directory
from pitstop.configs.schema import RankSettings
from pitstop.trainers.tasks.rank import retrievers
from pitstop.trainers.tasks.rank.draws import sample
from pitstop.trainers.tasks.rank.histories import UserHistories

VERSION = 1
"""Raised when the same settings would give other candidates."""

EVALUATED = ("validation", "test")
_USERS = 0x75736572  # key of the draw of users


@dataclass(frozen=True)
class RetrievedCandidates:
    """What was found for some users: their numbers, int64 ``(users,)``, and for each split the items, best first, and scores.

    Items are int32 and scores float32 of shape ``(users, candidates)``; -1 stands where there are no more items.
    """

    users: np.ndarray
    items: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]

    def to_bytes(self) -> bytes:
        """As a safetensors file that holds a digest of its content."""
        from safetensors.numpy import save

        tensors = self._tensors()
        return bytes(save(tensors, metadata={"sha256": _digest(tensors)}))

    @classmethod
    def from_bytes(cls, data: bytes) -> RetrievedCandidates:
        """Raises ``ValueError`` for what ``to_bytes`` did not write."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            stated = header["__metadata__"]["sha256"]
            users = tensors.pop("users")
            retrieved = cls(
                users,
                {split: tensors[f"{split}_items"] for split in EVALUATED},
                {split: tensors[f"{split}_scores"] for split in EVALUATED},
            )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError("not a file of retrieved candidates") from error
        if _digest(retrieved._tensors()) != stated:
            raise ValueError("its content has changed")
        return retrieved

    def _tensors(self) -> dict[str, np.ndarray]:
        items = {f"{split}_items": self.items[split] for split in EVALUATED}
        return {"users": self.users, **items, **{f"{split}_scores": self.scores[split] for split in EVALUATED}}


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def retrieve(sequences: UserHistories, settings: RankSettings, seed: int, say: Callable[[str], None]) -> RetrievedCandidates:
    """The candidates of the evaluated users, from the cache or found now and put there."""
    path = cache_directory() / "rank" / f"{fingerprint(sequences, settings, seed)}.safetensors"
    retrieved = _from_cache(path, say)
    if retrieved is None:
        retrieved = find(sequences, settings, seed, say)
        _into_cache(path, retrieved, say)
    return retrieved


def fingerprint(sequences: UserHistories, settings: RankSettings, seed: int) -> str:
    """SHA-256 of everything that the candidates depend on: data, retriever, number, users and seed."""
    chosen: dict[str, Any] = {
        "version": VERSION,
        "data": sequences.digest(),
        "retriever": settings.retriever,
        "epochs": settings.retriever_epochs,
        "candidates": settings.candidates,
        "eval_users": settings.eval_users,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def find(sequences: UserHistories, settings: RankSettings, seed: int, say: Callable[[str], None]) -> RetrievedCandidates:
    """Fit the retriever and take the best candidates of each evaluated user for both held-out items."""
    total = len(sequences.user_ids)
    users = sample(settings.eval_users or total, total, seed, _USERS)
    retriever = retrievers.fit(settings.retriever, sequences, seed=seed, epochs=settings.retriever_epochs, say=say)
    items, scores = {}, {}
    for split in EVALUATED:
        histories = [sequences.history(user, split) for user in users]
        items[split], scores[split] = retrievers.top(retriever, histories, settings.candidates)
    return RetrievedCandidates(users, items, scores)


def _from_cache(path: Path, say: Callable[[str], None]) -> RetrievedCandidates | None:
    try:
        return RetrievedCandidates.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        say(f"The cached candidates in {path} cannot be used ({error}); they are made again.")
        return None


def _into_cache(path: Path, retrieved: RetrievedCandidates, say: Callable[[str], None]) -> None:
    storage = LocalStorage()
    try:
        make_directories(storage, path.parent)
        atomic_write(storage, path, retrieved.to_bytes())
    except OSError as error:
        say(f"The candidates could not be kept in {path} ({error.strerror or error}): the next start computes them again.")
