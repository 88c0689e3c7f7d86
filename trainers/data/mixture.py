"""Several data sets as one, each packed by itself, with or without weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset, Sequences
from pitstop.trainers.data.examples import JoinedExamples
from pitstop.trainers.data.order import permutation, shares, stream
from pitstop.trainers.data.packing import Arrangement, Packs


class Mixture(Dataset):
    """Several data sets; a sequence holds examples of one of them.

    An epoch has as many sequences as all parts together. Without ``weights`` these are all of them, each once. With weights part
    ``i`` contributes ``share[i]``, its weight's share of them, out of an endless stream of passes over it (``order.stream``).
    """

    def __init__(self, parts: Sequence[Dataset], names: Sequence[str], weights: Sequence[float] | None = None) -> None:
        self.names = tuple(names)
        self.weights = tuple(weights) if weights is not None else None
        self._parts = tuple(parts)
        sizes = [len(part) for part in parts]
        self.share = tuple(shares(self.weights, sum(sizes)) if self.weights else sizes)
        self._starts = np.cumsum([0, *sizes])
        self.counts = Counts.together([part.counts for part in parts])
        self._packed_length = parts[0]._packed_length
        self._arrange(JoinedExamples([part.examples for part in parts]), Arrangement(_joined(parts), self._combined()))

    def _combined(self) -> str:
        """The parts' fingerprints and what shapes the order: two pairs of weights with the same shares give the same batches."""
        composition = [[part.fingerprint for part in self._parts], self.share if self.weights else None]
        return hashlib.sha256(f"pitstop-mixture-1-{json.dumps(composition)}".encode()).hexdigest()

    @property
    def parts(self) -> tuple[Dataset, ...]:
        """The data sets that it is mixed of."""
        return self._parts

    @property
    def tokens_per_epoch(self) -> float:
        """Tokens trained on in an epoch; a mean where parts have weights, since epochs then differ."""
        return sum(part.counts.tokens / len(part) * share for part, share in zip(self._parts, self.share, strict=True))

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """The sequences of an epoch in the order of training: ``int64``, as many as all parts have together."""
        turns = permutation(len(self), seed=seed, epoch=epoch)
        if self.weights is None:
            return turns
        chosen = [
            start + stream(len(part), share, seed=seed, epoch=epoch, source=number)
            for number, (part, share, start) in enumerate(zip(self._parts, self.share, self._starts.tolist(), strict=False))
        ]
        return np.asarray(np.concatenate(chosen)[turns])

    def sources_of(self, sequence_ids: np.ndarray) -> np.ndarray:
        """For each of the given sequences the index in ``names`` of where it is from, as ``int64``."""
        return np.searchsorted(self._starts, sequence_ids, side="right") - 1

    def batches(self, size: int) -> list[np.ndarray]:
        """All sequences in order, at most ``size`` at a time and none together with those of another source."""
        return [
            start + ids for part, start in zip(self._parts, self._starts.tolist(), strict=False) for ids in part.batches(size)
        ]


def mixed(parts: Sequence[Dataset], names: Sequence[str], weights: Sequence[float] | None = None) -> Dataset:
    """A mixture of ``parts``; a part that is alone needs none."""
    return parts[0] if len(parts) == 1 else Mixture(parts, names, weights)


def _joined(parts: Sequence[Dataset]) -> Packs:
    """The packs of all parts, with the numbers that their examples have among all."""
    offsets = np.cumsum([0, *(len(part.examples) for part in parts)])
    bounds = [part.packs.bounds[:-1] + start for part, start in zip(parts, offsets, strict=False)]
    members = [part.packs.members + start for part, start in zip(parts, offsets, strict=False)]
    return Packs(np.concatenate([*bounds, offsets[-1:]]), np.concatenate(members))


def describe_shares(data: Sequences) -> list[str]:
    """What each data set of a mixture contributes to an epoch, in words; nothing for one that is from a single source."""
    if not isinstance(data, Mixture):
        return []
    return [
        f"{name}: {share:,} sequences an epoch ({100 * share / len(data):.1f} %) of {len(part):,}"
        for name, share, part in zip(data.names, data.share, data.parts, strict=True)
    ]
