"""Many examples, wherever they lie: what a data set needs to know of all of them at once, and each one on request."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import overload

import numpy as np

from pitstop.trainers.data.example import Example
from pitstop.trainers.data.packing import Arrangement


class Examples(Sequence[Example]):
    """A sequence of examples that need not be in memory.

    ``lengths`` and ``learnt`` (int64, ``(examples,)``) are their tokens and supervised tokens, ``answers`` (int64) the
    answers learnt in them, ``cut`` (bool) whether their prompts were cut, ``opens`` (bool) whether they are the first of a record.
    """

    lengths: np.ndarray
    learnt: np.ndarray
    answers: np.ndarray
    cut: np.ndarray
    opens: np.ndarray

    @property
    @abstractmethod
    def hashes(self) -> np.ndarray:
        """Those of ``Example.hash64``, as uint64."""

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(len(self)))]
        number = int(index)
        if not -len(self) <= number < len(self):
            raise IndexError(index)
        return self._at(number % len(self))

    def __iter__(self) -> Iterator[Example]:
        return self.scan()

    @abstractmethod
    def _at(self, index: int) -> Example:
        """One example; ``index`` is in range."""

    @abstractmethod
    def scan(self) -> Iterator[Example]:
        """All of them in order, each forgotten before the next comes."""

    def arranged(self, name: str, make: Callable[[], Arrangement]) -> Arrangement:
        """What ``make`` gives, or what it gave before under this ``name`` where that is kept beside the examples."""
        del name
        return make()

    @abstractmethod
    def groups(self) -> tuple[np.ndarray, list[str]]:
        """For each example the number of its group, -1 where it has none (int64), and the groups' names."""


class InMemory(Examples):
    """Examples in a list."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = list(examples)
        count = len(self._examples)
        self.lengths = np.fromiter((len(e) for e in self._examples), dtype=np.int64, count=count)
        self.learnt = np.fromiter((int(e.supervised.sum()) for e in self._examples), dtype=np.int64, count=count)
        self.answers = np.fromiter((e.answers for e in self._examples), dtype=np.int64, count=count)
        self.cut = np.fromiter((e.cut for e in self._examples), dtype=bool, count=count)
        self.opens = np.fromiter((e.opens for e in self._examples), dtype=bool, count=count)

    @cached_property
    def hashes(self) -> np.ndarray:
        """See ``Examples``."""
        return np.fromiter((example.hash64 for example in self._examples), dtype=np.uint64, count=len(self))

    def _at(self, index: int) -> Example:
        return self._examples[index]

    def scan(self) -> Iterator[Example]:
        """All of them in order."""
        return iter(self._examples)

    def groups(self) -> tuple[np.ndarray, list[str]]:
        """See ``Examples``."""
        numbers: dict[str, int] = {}
        named = (numbers.setdefault(e.group, len(numbers)) if e.group else -1 for e in self._examples)
        group_numbers = np.fromiter(named, dtype=np.int64, count=len(self))
        return group_numbers, list(numbers)


class ExampleSubset(Examples):
    """Some of ``examples``, in their order. ``indices`` (int64) ascend."""

    def __init__(self, examples: Examples, indices: np.ndarray) -> None:
        self._source, self._indices = examples, indices
        self.lengths, self.learnt, self.cut = examples.lengths[indices], examples.learnt[indices], examples.cut[indices]
        self.answers, self.opens = examples.answers[indices], examples.opens[indices]

    @property
    def hashes(self) -> np.ndarray:
        """See ``Examples``."""
        return np.asarray(self._source.hashes[self._indices])

    def _at(self, index: int) -> Example:
        return self._source[int(self._indices[index])]

    def arranged(self, name: str, make: Callable[[], Arrangement]) -> Arrangement:
        """Kept beside the source, if that keeps any."""
        chosen = hashlib.sha256(self._indices.astype("<i8").tobytes()).hexdigest()
        return self._source.arranged(f"{name}-{chosen}", make)

    def scan(self) -> Iterator[Example]:
        """All of them in order."""
        is_member = np.zeros(len(self._source), dtype=bool)
        is_member[self._indices] = True
        return (example for number, example in enumerate(self._source.scan()) if is_member[number])

    def groups(self) -> tuple[np.ndarray, list[str]]:
        """See ``Examples``."""
        numbers, names = self._source.groups()
        return numbers[self._indices], names


class JoinedExamples(Examples):
    """Several sequences of examples as one."""

    def __init__(self, parts: Sequence[Examples]) -> None:
        self._parts = list(parts)
        self._starts: list[int] = [0, *np.cumsum([len(part) for part in parts]).tolist()]
        self.lengths = np.concatenate([part.lengths for part in parts])
        self.learnt = np.concatenate([part.learnt for part in parts])
        self.answers = np.concatenate([part.answers for part in parts])
        self.cut = np.concatenate([part.cut for part in parts])
        self.opens = np.concatenate([part.opens for part in parts])

    @property
    def hashes(self) -> np.ndarray:
        """See ``Examples``."""
        return np.concatenate([part.hashes for part in self._parts])

    def _at(self, index: int) -> Example:
        part = bisect_right(self._starts, index) - 1
        return self._parts[part][index - self._starts[part]]

    def scan(self) -> Iterator[Example]:
        """All of them in order."""
        return chain.from_iterable(part.scan() for part in self._parts)

    def groups(self) -> tuple[np.ndarray, list[str]]:
        """See ``Examples``: a name that two parts have is one group."""
        names: dict[str, int] = {}
        group_numbers: list[np.ndarray] = []
        for part in self._parts:
            numbers, part_names = part.groups()
            shared = np.array([names.setdefault(name, len(names)) for name in part_names] + [-1], dtype=np.int64)
            group_numbers.append(shared[numbers])  # -1 reads the last entry, which says -1 again
        return np.concatenate(group_numbers), list(names)


def in_memory(examples: Sequence[Example]) -> Examples:
    """``examples`` as ``Examples``, unless they are."""
    return examples if isinstance(examples, Examples) else InMemory(examples)
