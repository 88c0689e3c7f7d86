"""A tokenised, packed data set: examples, sequences, their order, and the fingerprint that a resume compares."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import Examples, in_memory
from pitstop.trainers.data.order import permutation
from pitstop.trainers.data.packing import PACKING_VERSION, Arrangement, pack, singles


class Sequences(ABC):
    """What training takes in steps: sequences of text or single images, each with so many units that have a loss.

    ``names`` are those of the data sets that it is mixed of (``mixture.Mixture``); there are none in one from a single source.
    """

    names: tuple[str, ...] = ()
    counts: Counts
    fingerprint: str
    """Equal fingerprints give equal batches."""
    _supervised: np.ndarray  # units with a loss of each sequence, and all its units; int64
    _tokens: np.ndarray

    def __len__(self) -> int:
        """Number of sequences, which is how many an epoch has."""
        return len(self._tokens)

    @property
    def parts(self) -> tuple[Sequences, ...]:
        """The data sets that it is mixed of; itself where it is from a single source."""
        return (self,)

    @property
    def tokens_per_epoch(self) -> float:
        """Units trained on in an epoch; a mean where parts have weights, since epochs then differ."""
        return float(self.counts.tokens)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """The sequences of an epoch in the order of training: ``int64``, as many as there are sequences."""
        return permutation(len(self), seed=seed, epoch=epoch)

    def supervised_tokens(self, sequence_ids: np.ndarray) -> int:
        """Units with a loss in the given sequences."""
        return int(self._supervised[sequence_ids].sum())

    def tokens(self, sequence_ids: np.ndarray) -> int:
        """All units in the given sequences."""
        return int(self._tokens[sequence_ids].sum())

    def supervised_in(self, sequence_ids: np.ndarray) -> np.ndarray:
        """Units with a loss in each of the given sequences, as ``int64``."""
        return np.asarray(self._supervised[sequence_ids])

    def sources_of(self, sequence_ids: np.ndarray) -> np.ndarray:
        """For each of the given sequences the index in ``names`` of where it is from, as ``int64``."""
        return np.zeros(len(sequence_ids), dtype=np.int64)

    def longest(self, count: int) -> int:
        """Units in the ``count`` longest sequences together."""
        return int(np.sort(self._tokens)[-count:].sum())

    def batches(self, size: int) -> list[np.ndarray]:
        """All sequences in order, at most ``size`` at a time and none together with those of another source."""
        return [np.arange(start, min(start + size, len(self))) for start in range(0, len(self), size)]

    @abstractmethod
    def first(self, count: int) -> Sequences:
        """The first ``count`` records alone, with their counts."""

    def in_words(self) -> str:
        """How much it is, for people."""
        counts = self.counts
        tokens = f"{counts.tokens:,} tokens ({counts.supervised_tokens:,} supervised)"
        return f"{counts.used:,} records, {tokens} in {len(self):,} sequences"

    def described(self) -> dict[str, Any]:
        """What a run records of it beside its size and fingerprint."""
        return self.counts.as_dict()


class Dataset(Sequences):
    """Examples grouped into sequences of at most ``max_length`` tokens."""

    def __init__(self, examples: Sequence[Example], *, max_length: int, packing: bool, counts: Counts) -> None:
        self.counts = counts
        self._packed_length = max_length if packing else 0
        self._arrange(in_memory(examples), _arrangement(in_memory(examples), self._packed_length))

    def _arrange(self, examples: Examples, arrangement: Arrangement) -> None:
        self.examples, self.packs, self.fingerprint = examples, arrangement.packs, arrangement.fingerprint
        self._supervised = self.packs.sums(examples.learnt)
        self._tokens = self.packs.sums(examples.lengths)

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """See ``Sequences``."""
        return (self,)

    def sequence_examples(self, sequence_ids: Iterable[int]) -> list[Example]:
        """The examples of the given sequences, in order."""
        return [self.examples[i] for sequence in sequence_ids for i in self.packs[sequence].tolist()]

    def first(self, count: int) -> Dataset:
        """The first ``count`` examples, packed anew; of a mixture those of its first parts."""
        examples = self.examples[:count]
        counts = replace(
            self.counts,
            used=len(examples),
            tokens=sum(len(example) for example in examples),
            supervised_tokens=sum(int(example.supervised.sum()) for example in examples),
            cut=sum(example.cut for example in examples),
            read=replace(self.counts.read, used=sum(example.opens for example in examples)),
            answers=replace(self.counts.answers, used=sum(example.answers for example in examples)),
        )
        return Dataset(examples, max_length=self._packed_length, packing=self._packed_length > 0, counts=counts)


def _arrangement(examples: Examples, packed_length: int) -> Arrangement:
    """Packs of at most ``packed_length`` tokens, or one example each where that is 0."""

    def make() -> Arrangement:
        packs = pack(examples.lengths, packed_length) if packed_length else singles(len(examples))
        return Arrangement(packs, _fingerprint(examples, packed_length))

    return examples.arranged(f"{PACKING_VERSION}-{packed_length}", make)


def _fingerprint(examples: Examples, packed_length: int) -> str:
    """SHA-256 over token ids, supervision and packing: equal fingerprints give equal batches."""
    digest = hashlib.sha256(f"pitstop-data-{PACKING_VERSION}-{packed_length}-{len(examples)}".encode())
    for example in examples.scan():
        digest.update(len(example).to_bytes(8, "little"))
        digest.update(example.input_ids.astype("<i4").tobytes())
        digest.update(np.packbits(example.supervised).tobytes())
    return digest.hexdigest()
