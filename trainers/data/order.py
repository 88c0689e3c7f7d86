"""Which sequences make up which step: a pure function of seed, epoch and position.

Nothing here holds state, so resuming needs three integers, and the order is the same on every machine and under every
version of NumPy (whose own generators may change their streams between releases).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np

from pitstop.configs.schema import TrainingSettings

_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea and Flood 2014), element by element on ``uint64``."""
    with np.errstate(over="ignore"):
        z = (values + np.uint64(0x9E3779B97F4A7C15)) & _MASK
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def permutation(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of ``count`` sequences in an epoch, as an ``int64`` array of shape ``(count,)``."""
    order: np.ndarray = _permutations(count, seed=seed, epochs=np.array([epoch], dtype=np.uint64))[0]
    return order


def _permutations(count: int, *, seed: int, epochs: np.ndarray) -> np.ndarray:
    """The orders of ``count`` sequences in each of ``epochs`` (uint64), of shape ``(epochs, count)``."""
    key = splitmix64(np.array([seed], dtype=np.uint64))
    keys = splitmix64(key ^ epochs)
    hashes = splitmix64(np.arange(count, dtype=np.uint64) ^ keys[:, None])
    return np.argsort(hashes, kind="stable", axis=1)


def shares(weights: Sequence[float], total: int) -> list[int]:
    """How many of ``total`` each weight gets, by largest remainder (Hamilton 1792); at equal remainders the first wins.

    The weights are taken as the decimal numbers that they were written as, so 0.7 and 0.3 share as 7 and 3 do.
    """
    exact = [Fraction(repr(weight)) for weight in weights]
    quotas = [total * weight / sum(exact) for weight in exact]
    counts = [floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: counts[i] - quotas[i])  # a stable sort
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def stream(count: int, share: int, *, seed: int, epoch: int, source: int) -> np.ndarray:
    """The ``share`` sequences that an epoch takes of a source with ``count``, as ``int64`` numbers within it.

    The source is an endless stream, pass after pass, each in its own order; epoch ``e`` takes the elements from ``e · share`` on. So every
    sequence comes as often as any other, give or take one, however small the share.
    """
    first = epoch * share
    passes = np.arange(first // count, (first + share - 1) // count + 1, dtype=np.uint64) if share else np.zeros(0, np.uint64)
    own_seed = int(splitmix64(np.array([seed], dtype=np.uint64) ^ splitmix64(np.array([source + 1], dtype=np.uint64)))[0])
    elements = _permutations(count, seed=own_seed, epochs=passes).reshape(-1)
    return elements[first % count :][:share]


def held_out(count: int, fraction: float, *, seed: int) -> np.ndarray:
    """The numbers of those of ``count`` (two or more) elements that are held out, ``int64``: about ``fraction``, and at least one stays on either side."""
    share = min(count - 1, max(1, round(count * fraction)))
    return permutation(count, seed=seed, epoch=2**32)[:share]  # an epoch number that training never reaches


@dataclass(frozen=True)
class BatchShape:
    """How one optimizer step is cut up: sequences per micro-batch, micro-batches, processes."""

    batch_size: int
    accumulation: int
    world_size: int

    @classmethod
    def of(cls, settings: TrainingSettings, processes: int) -> BatchShape:
        """The shape that the settings ask for, with so many processes."""
        return cls(settings.batch_size, settings.gradient_accumulation_steps, processes)

    @property
    def sequences(self) -> int:
        """Sequences in a full optimizer step, over all processes."""
        return self.batch_size * self.accumulation * self.world_size

    def steps_in(self, sequences: int) -> int:
        """Optimizer steps that ``sequences`` sequences make; the last may be partly filled."""
        return ceil(sequences / self.sequences)


def micro_batches(step_ids: np.ndarray, shape: BatchShape, rank: int) -> list[np.ndarray]:
    """The sequence ids of each micro-batch that ``rank`` computes of one step.

    ``step_ids`` holds the ids of the whole step, at most ``shape.sequences``. All ranks get the same number of
    micro-batches, as DistributedDataParallel needs; in a partly filled last step some of them are empty.
    """
    per_round = shape.batch_size * shape.world_size
    rounds = ceil(len(step_ids) / per_round)
    starts = (m * per_round + rank * shape.batch_size for m in range(rounds))
    return [step_ids[start : start + shape.batch_size] for start in starts]
