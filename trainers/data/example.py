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
    first example of its record, ``options`` with which options the chat template asks for its answers, as JSON (empty where none was
    asked): all of these are counted.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    reference: str = ""
    group: str = ""
    cut: bool = False
    answers: int = 1
    opens: bool = True
    options: str = ""

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


@dataclass(frozen=True)
class PreferenceExample(Example):
    """A question and its answers: ``input_ids`` are those of the question, with its BOS, then of the chosen and of the rejected answer.

    ``prompt_length`` and ``chosen_length`` are the tokens of the first two, the latter 0 where an answer was judged to be bad; one that was
    judged to be good has nothing behind it. ``margin`` is None where the record has none.
    """

    prompt_length: int = 0
    chosen_length: int = 0
    margin: float | None = None

    def __len__(self) -> int:
        """Tokens of the question with the longer answer, which is what has to fit."""
        answers = self.input_ids.size - self.prompt_length
        return self.prompt_length + max(self.chosen_length, answers - self.chosen_length)

    @property
    def hash64(self) -> int:
        """See ``Example``; where the answers begin is part of it."""
        places = f"{self.prompt_length} {self.chosen_length}".encode()
        return int.from_bytes(blake2b(super().hash64.to_bytes(8, "little") + places, digest_size=8).digest(), "little")

    def equals(self, other: Example) -> bool:
        """See ``Example``."""
        places = (self.prompt_length, self.chosen_length)
        is_alike = isinstance(other, PreferenceExample) and (other.prompt_length, other.chosen_length) == places
        return is_alike and super().equals(other)

    @property
    def sides(self) -> dict[str, Example]:
        """The question with each of the answers that there are, by ``chosen`` and ``rejected``."""
        start, middle, end = self.prompt_length, self.prompt_length + self.chosen_length, self.input_ids.size
        spans = {"chosen": (start, middle), "rejected": (middle, end)}
        return {
            name: Example(
                np.concatenate([self.input_ids[:start], self.input_ids[first:last]]),
                np.concatenate([self.supervised[:start], self.supervised[first:last]]),
            )
            for name, (first, last) in spans.items()
            if last > first
        }
