"""Examples that are the same: equal tokens, and the same of them learnt."""

from __future__ import annotations

import hashlib

import numpy as np

from pitstop.trainers.data.example import Example


def example_hash(example: Example) -> int:
    """64 bits that equal examples have in common."""
    digest = hashlib.blake2b(example.input_ids.astype("<i4").tobytes(), digest_size=8)
    digest.update(np.packbits(example.supervised).tobytes())
    return int.from_bytes(digest.digest(), "little")


def repeated(hashes: np.ndarray) -> int:
    """How many of ``hashes`` (uint64) are the same as an earlier one."""
    return len(hashes) - len(np.unique(hashes))
