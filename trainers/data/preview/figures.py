"""Figures of all examples of a data set, gathered while they pass by."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pitstop.trainers.data.counts import Counts, LeftOut
from pitstop.trainers.data.duplicates import repeated
from pitstop.trainers.data.example import Example


@dataclass(frozen=True)
class LengthBin:
    """``count`` examples of ``low`` to ``high`` tokens."""

    low: int
    high: int
    count: int


class ExampleFigures:
    """Lengths, learnt tokens, hashes, and how many examples a record gives."""

    def __init__(self) -> None:
        self._lengths = array("q")
        self._hashes = array("Q")
        self._of_records: Counter[int] = Counter()
        self.used = self.tokens = self.learnt = self.answers = self.cut = 0

    def add(self, examples: Sequence[Example], too_long: Sequence[Example]) -> None:
        """Take the examples of a record: those that are used, and those that are left out as too long."""
        if examples:
            self._of_records[len(examples)] += 1
        for example in examples:
            self._hashes.append(example.hash64)
            self.used += 1
            self.tokens += example.input_ids.size
            self.learnt += int(example.supervised.sum())
            self.answers += example.answers
            self.cut += example.cut
        self._lengths.extend(len(example) for example in (*examples, *too_long))

    @property
    def records(self) -> int:
        """Records that give an example."""
        return sum(self._of_records.values())

    def counts(self, left_out: LeftOut) -> Counts:
        """As training counts the examples, and what was left out beside them."""
        return Counts.beside(
            left_out,
            used=self.used,
            tokens=self.tokens,
            learnt=self.learnt,
            cut=self.cut,
            records=self.records,
            answers=self.answers,
        )

    @property
    def of_records(self) -> dict[int, int]:
        """How many records give so many examples, in ascending order."""
        return dict(sorted(self._of_records.items()))

    @property
    def hashes(self) -> np.ndarray:
        """Those of the examples that are used, as uint64."""
        return np.array(self._hashes, dtype=np.uint64)

    @property
    def duplicates(self) -> int:
        """Examples that occur more than once."""
        return repeated(self.hashes)

    @property
    def longest(self) -> int:
        """Tokens of the longest example, used or not; 0 where there is none."""
        return max(self._lengths, default=0)

    def histogram(self) -> list[LengthBin]:
        """Lengths of all examples, used or too long, in powers of two: 1, 2, 3–4, 5–8, …, from the shortest to the longest."""
        lengths = np.array(self._lengths, dtype=np.int64)
        if not len(lengths):
            return []
        powers = np.ceil(np.log2(lengths)).astype(np.int64)
        counts = np.bincount(powers)
        first = int(powers.min())
        return [
            LengthBin(2 ** (power - 1) + 1 if power else 1, 2**power, int(counts[power])) for power in range(first, len(counts))
        ]
