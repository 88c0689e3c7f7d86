"""What a task makes of a record: token ids, and which of them are learnt."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np


@dataclass(frozen=True)
class Example:
    """A tokenised record: ``input_ids`` int32 and ``supervised`` bool, both of shape ``(tokens,)``.

    ``reference`` is what the task's scorer compares an answer with, as JSON; empty where nothing is scored. Examples of one
    ``group`` (one article, say) never stand on both sides of a split; without one each example is its own group. ``cut`` says
    that its prompt was cut to fit, ``answers`` how many answers are learnt in it (a document has none), ``opens`` that it is the
    first example of its record: all of these are counted.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    reference: str = ""
    group: str = ""
    cut: bool = False
    answers: int = 1
    opens: bool = True

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def hash64(self) -> int:
        """64 bits that examples have in common whose tokens and learnt positions are equal."""
        ids = self.input_ids.astype("<i4", copy=False).tobytes()
        return int.from_bytes(blake2b(ids + np.packbits(self.supervised).tobytes(), digest_size=8).digest(), "little")

    def equals(self, other: Example) -> bool:
        """Whether tokens and learnt positions are equal."""
        return np.array_equal(self.input_ids, other.input_ids) and np.array_equal(self.supervised, other.supervised)

    @property
    def prompt(self) -> np.ndarray:
        """The token ids in front of the first one that is learnt: what generation starts from."""
        return self.input_ids[: int(np.argmax(self.supervised))]
