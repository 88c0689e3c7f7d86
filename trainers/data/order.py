"""Which sequences make up which step: a pure function of seed, epoch and position.

Nothing here holds state, so resuming needs three integers, and the order is the same on every machine and under every
version of NumPy (whose own generators may change their streams between releases).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

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
    key = splitmix64(np.array([seed], dtype=np.uint64))
    key = splitmix64(key ^ np.array([epoch], dtype=np.uint64))
    hashes = splitmix64(np.arange(count, dtype=np.uint64) ^ key)
    return np.argsort(hashes, kind="stable")


@dataclass(frozen=True)
class BatchShape:
    """How one optimizer step is cut up: sequences per micro-batch, micro-batches, processes."""

    batch_size: int
    accumulation: int
    world_size: int

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
