"""Records longer than MAX_LENGTH: documents are split, conversations shortened by whole exchanges, and nothing is cut in silence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.chat.conversation import Conversation, Document, Form, TextPair
from pitstop.trainers.data.chat.tokens import leading_bos
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord, BadRows

SPLIT = "{count} [document was|documents were] split into {pieces} pieces of at most MAX_LENGTH = {length} tokens"
CUT_DOCUMENT = "{count} [document was|documents were] cut to MAX_LENGTH = {length} tokens"
CUT_ANSWER = (
    "{count} [answer was|answers were] cut to fit MAX_LENGTH = {length} tokens, so that [its end is|their ends are] not learnt"
)
SHORTENED = "{count} [conversation was|conversations were] shortened to fit MAX_LENGTH = {length} tokens"
DROPPED_ANSWER = "{count} [answer is|answers are] not learnt, since [its exchange does|their exchanges do] not fit MAX_LENGTH = {length} tokens"
LAST_TOKEN = "{count} [document ends|documents end] in a piece of one token, which has nothing in front of it and is not learnt"

_USER = "user"

Encode = Callable[[Form], Sequence[Example]]
"""The examples of a record in its normal form. Raises ``BadRecord``."""


@dataclass(frozen=True)
class LengthRule:
    """What becomes of records of more than ``longest`` tokens; see ``--too-long``."""

    longest: int
    too_long: str = "auto"
    overlap: int = 0


class OverlongExamples:
    """Examples that are left out: their ``lengths`` in tokens, and where the first one is. With ``refuse`` none may be."""

    def __init__(self, longest: int, *, refuse: bool = False) -> None:
        self._longest, self._refuse = longest, refuse
        self.lengths: list[int] = []
        self._first = ""

    def add(self, place: str, tokens: int) -> None:
        """Count one. Raises ``DataError`` where none may be left out."""
        if self._refuse:
            raise DataError(
                f"{place}: {tokens:,} tokens, and MAX_LENGTH is {self._longest}.",
                hint="Raise --max-length, or let --too-long say what becomes of such records: drop, split, left or right.",
            )
        self._first = self._first or place
        self.lengths.append(tokens)

    def notice(self, total: int, remedy: str) -> Notice:
        """What is told of them: of ``total`` records, which power of two would fit 99 % of them, and what to do."""
        most = sorted(self.lengths)[math.ceil(0.99 * len(self.lengths)) - 1]
        reason = (
            f"{{count}} of {total:,} records [is|are] longer than MAX_LENGTH = {self._longest} tokens and [was|were] left out "
            f"(longest {max(self.lengths):,}; {1 << (most - 1).bit_length():,} would fit 99 % of them)"
        )
        return Notice(reason, count=len(self.lengths), place=self._first, remedy=remedy, loss=True)


class LengthFitter:
    """Makes the examples of a record fit, where the rule says how; those it leaves as they are, reading leaves out and counts."""

    def __init__(self, rule: LengthRule, encode: Encode, tokenizer: Any) -> None:
        self._rule, self._encode, self._tokenizer = rule, encode, tokenizer
        self._documents = self._pieces = 0  # that were split, and what they became
        self._first_split = ""

    def fit(self, form: Form, examples: list[Example], place: str, bad_rows: BadRows) -> list[Example] | BadRecord:
        """The examples that are used in place of ``examples``, or why there are none; what is decided goes to ``bad_rows``."""
        rule = self._rule
        if all(len(example) <= rule.longest for example in examples) or rule.too_long in ("drop", "refuse"):
            return examples
        if isinstance(form, Document):
            return self._fit_document(examples[0], place, bad_rows)
        if rule.too_long == "split":
            return BadRecord(
                f"it is longer than MAX_LENGTH = {rule.longest} tokens, and split is for documents",
                sum(example.answers for example in examples),
                hint="--too-long auto splits documents and leaves other records out.",
            )
        if rule.too_long == "auto":
            return examples
        shorter = self._from_the_end(form) if rule.too_long == "right" else self._from_the_front(form)
        if shorter is None:
            return examples
        self._tell(SHORTENED, place, bad_rows, loss=False)
        lost = sum(example.answers for example in examples) - sum(example.answers for example in shorter.examples)
        if lost > 0:
            bad_rows.leave_out_answers(self._notice(DROPPED_ANSWER, place, lost))
        if shorter.cuts_answer:
            self._tell(CUT_ANSWER, place, bad_rows)
        return [replace(example, group=examples[0].group) for example in shorter.examples]

    def conclude(self, bad_rows: BadRows) -> None:
        """Tell what is known behind the last record of a data set; the next record begins another."""
        if self._documents:
            reason = SPLIT.replace("{pieces}", f"{self._pieces:,}")
            bad_rows.notices.add(self._notice(reason, self._first_split, self._documents, loss=False))
        self._documents = self._pieces = 0

    def _notice(self, reason: str, place: str, count: int = 1, *, loss: bool = True) -> Notice:
        return Notice(reason.replace("{length}", str(self._rule.longest)), count=count, place=place, loss=loss)

    def _tell(self, reason: str, place: str, bad_rows: BadRows, *, loss: bool = True) -> None:
        bad_rows.notices.add(self._notice(reason, place, loss=loss))

    # Documents -----------------------------------------------------------------------------------------------------------

    def _fit_document(self, example: Example, place: str, bad_rows: BadRows) -> list[Example]:
        longest = self._rule.longest
        if self._rule.too_long in ("left", "right"):
            self._tell(CUT_DOCUMENT, place, bad_rows)
            if self._rule.too_long == "right":
                return [_part(example, example.input_ids[:longest], example.supervised[:longest])]
            return [self._last_tokens(example)]
        parts = self.pieces(example)
        if len(parts[-1]) - self._front(example) == 1 and not self._rule.overlap:
            self._tell(LAST_TOKEN, place, bad_rows)
            parts = parts[:-1]
        if not self._documents:
            self._first_split = place
        self._documents, self._pieces = self._documents + 1, self._pieces + len(parts)
        group = example.group or place
        return [replace(part, group=group) for part in parts]

    def pieces(self, example: Example) -> list[Example]:
        """Pieces of a document, of the longest length each: with BOS in front, and what the one before ended in as context.

        Tokens that come again are not learnt, nor is the first of a later piece where none comes again.
        """
        front, overlap = self._front(example), self._rule.overlap
        content, room = example.input_ids[front:], self._rule.longest - self._front(example)
        parts: list[Example] = []
        for start in range(0, max(1, len(content) - overlap), room - overlap):
            tokens = content[start : start + room]
            learnt = np.ones(len(tokens), dtype=bool)
            if start:
                learnt[: max(1, overlap)] = False
            elif not front:
                learnt[0] = False
            ids = np.concatenate([example.input_ids[:front], tokens])
            parts.append(_part(example, ids, np.concatenate([np.zeros(front, dtype=bool), learnt])))
        return parts

    def _last_tokens(self, example: Example) -> Example:
        """BOS and as many of the last tokens as fit; the first of them is context."""
        front = self._front(example)
        ids = np.concatenate([example.input_ids[:front], example.input_ids[len(example) - self._rule.longest + front :]])
        return _part(example, ids, np.arange(len(ids)) > front)

    def _front(self, example: Example) -> int:
        """1 where BOS stands in front, else 0."""
        return int(self._bos_id is not None and int(example.input_ids[0]) == self._bos_id)

    @cached_property
    def _bos_id(self) -> int | None:
        return leading_bos(self._tokenizer)

    # Conversations -------------------------------------------------------------------------------------------------------

    def _from_the_end(self, form: Form) -> _Shorter | None:
        """With as many exchanges from the first on as fit; of one that does not, the first answer as far as it fits."""
        for candidate in _beginnings(form):
            if (examples := self._fitting(candidate)) is not None:
                return _Shorter(examples)
        first = _up_to_first_answer(form)
        example = self._encoded(first)[:1] if first is not None else []
        if not example:
            return None
        longest = self._rule.longest
        cut = _part(example[0], example[0].input_ids[:longest], example[0].supervised[:longest])
        return _Shorter([cut], cuts_answer=True) if cut.supervised.any() else None

    def _from_the_front(self, form: Form) -> _Shorter | None:
        """With as many of the last exchanges as fit, and what stands in front of the first; of one that does not, the question shortened."""
        last: Form = form
        for candidate in _endings(form):
            last = candidate
            if (examples := self._fitting(candidate)) is not None:
                return _Shorter(examples)
        question = _question(last)
        if not question:
            return None
        ids = self._tokenizer(question, add_special_tokens=False)["input_ids"]
        excess = max((len(example) for example in self._encoded(last)), default=0) - self._rule.longest
        for count in range(max(1, excess), len(ids)):
            text = self._tokenizer.decode(ids[count:], clean_up_tokenization_spaces=False)
            if not text.startswith("\ufffd") and (examples := self._fitting(_with_question(last, text))) is not None:
                return _Shorter([replace(example, cut=True) for example in examples])
        return None

    def _encoded(self, form: Form) -> Sequence[Example]:
        try:
            return self._encode(form)
        except BadRecord:  # a template may refuse a part of what it takes as a whole
            return []

    def _fitting(self, form: Form) -> Sequence[Example] | None:
        examples = self._encoded(form)
        return examples if examples and all(len(example) <= self._rule.longest for example in examples) else None


@dataclass(frozen=True)
class _Shorter:
    examples: Sequence[Example]
    cuts_answer: bool = False


def _part(example: Example, ids: np.ndarray, supervised: np.ndarray) -> Example:
    return replace(example, input_ids=ids.astype(np.int32), supervised=supervised)


def _starts(form: Conversation) -> list[int]:
    """Where exchanges begin: at a user's message that follows another one's, or nothing."""
    roles = [message["role"] for message in form.messages]
    return [number for number, role in enumerate(roles) if role == _USER and (number == 0 or roles[number - 1] != _USER)]


def _beginnings(form: Form) -> Iterator[Conversation]:
    """A conversation with fewer and fewer exchanges, the last ones gone; in the end up to the first answer."""
    if not isinstance(form, Conversation):
        return
    for end in reversed(_starts(form)[1:]):
        if any(form.learnt[:end]):
            last = max(number for number in range(end) if form.learnt[number])
            yield replace(form, messages=form.messages[: last + 1], learnt=form.learnt[: last + 1])
    if (first := _up_to_first_answer(form)) is not None and isinstance(first, Conversation):
        yield first


def _up_to_first_answer(form: Form) -> Form | None:
    if not isinstance(form, Conversation):
        return form
    end = next(number for number, learn in enumerate(form.learnt) if learn) + 1
    return replace(form, messages=form.messages[:end], learnt=form.learnt[:end])


def _endings(form: Form) -> Iterator[Form]:
    """A conversation with fewer and fewer exchanges, the first ones gone; what stands in front of the first stays."""
    if not isinstance(form, Conversation):
        yield form
        return
    starts = _starts(form)
    if len(starts) < 2:
        yield form
    head = starts[0] if starts else 0
    for start in starts[1:]:
        if any(form.learnt[start:]):
            yield replace(
                form,
                messages=[*form.messages[:head], *form.messages[start:]],
                learnt=[*form.learnt[:head], *form.learnt[start:]],
            )


def _question(form: Form) -> str:
    """The text that loses its beginning: the last user's message in front of an answer, of a pair its prompt."""
    if isinstance(form, TextPair):
        return form.prompt
    number = _question_number(form) if isinstance(form, Conversation) else None
    content = form.messages[number].get("content") if isinstance(form, Conversation) and number is not None else None
    return content if isinstance(content, str) else ""


def _question_number(form: Conversation) -> int | None:
    return next((n for n in reversed(range(len(form.messages))) if form.messages[n]["role"] == _USER), None)


def _with_question(form: Form, text: str) -> Form:
    if isinstance(form, TextPair):
        return replace(form, prompt=text)
    assert isinstance(form, Conversation)
    number = _question_number(form)
    messages = [{**m, "content": text} if position == number else m for position, m in enumerate(form.messages)]
    return replace(form, messages=messages)
