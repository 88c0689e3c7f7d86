"""Rendered examples as token ids: those that the tokenizer makes of the whole text, cut where an answer begins.

A text tokenised by itself may begin with a mark that it does not have further on (``▁`` of SentencePiece), and two pieces may have
tokens that run across their joint. So an example is tokenised whole wherever the tokens of what stands in front of an answer, which
generation starts from, are a beginning of that. Elsewhere the front keeps its tokens, and the answer has those that it has behind
something which does not melt into it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pitstop.trainers.data.chat.conversation import RenderedExample, Stretch
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord

NO_CHARACTER = "its text has half of a surrogate pair, which is no character"

_CUE_CHARACTERS = 256
"""A text behind an added token of at most so many characters is a cue that record after record repeats: its tokens are remembered."""

_REMEMBERED = 20_000
"""So many cues and ends of prompts are remembered at a time."""

_READ_TOKENS = 4
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NEAR = 32
"""Characters in front of an answer that tell where its prompt has no added token."""

_FRONTS = ("\n", ":", "|", ">", "]", "\x02")
"""What an answer is tokenised behind where it melts into its prompt, the first that it does not melt into."""


class _Tokenised(NamedTuple):
    """A text with its tokens; ``encoding`` (of the library tokenizers) tells where they stand in it, None where nothing does."""

    text: str
    ids: list[int]
    encoding: Any


Key = TypeVar("Key")
Value = TypeVar("Value")
Asking = Generator[list[str], list[_Tokenised], Example]
"""Asks for the tokens of texts, so that those of many examples are made in one call, and returns the example."""


class Tokens:
    """Tokenises by ``tokenizer``, with exactly one BOS where that puts one in front by itself."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._bos_id = leading_bos(tokenizer)
        self._unknown = getattr(tokenizer, "unk_token_id", None)  # of which no two need be the same text
        self._added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if number != self._unknown}
        self._cues: dict[str, list[int]] = {}
        self._ends: dict[tuple[int, int, int], bool] = {}

    def prompt_ids(self, text: str) -> list[int]:
        """The token ids of a text that an answer follows: what generation starts from. ``BadRecord``."""
        return with_bos(self._tokenised([text])[0].ids, self._bos_id)

    def answer_ids(self, prompt: str, answer: str) -> list[int]:
        """The token ids of ``answer`` behind those that ``prompt_ids`` gives of ``prompt``. ``BadRecord``."""
        example = self.examples_of([RenderedExample((Stretch(prompt, False), Stretch(answer, True)))])[0]
        if isinstance(example, BadRecord):
            raise example
        ids: list[int] = example.input_ids.tolist()
        return ids[len(self.prompt_ids(prompt)) :]

    def examples_of(self, rendered: Sequence[RenderedExample]) -> list[Example | BadRecord]:
        """The example of each, or why there is none, with a few calls of the tokenizer for all."""
        texts = ["".join(stretch.text for stretch in example.stretches) for example in rendered]
        try:
            wholes = self._tokenised(texts)
        except BadRecord as error:  # which of them it is
            return [error] if len(texts) == 1 else [self.examples_of([example])[0] for example in rendered]
        results: list[Example | BadRecord] = [BadRecord("it has no token to learn")] * len(rendered)
        steps = {
            number: self._example(example, whole) for number, (example, whole) in enumerate(zip(rendered, wholes, strict=True))
        }
        answers: dict[int, list[_Tokenised] | None] = dict.fromkeys(steps)
        while answers:
            asked: dict[int, list[str]] = {}
            for number, answer in answers.items():
                try:
                    asked[number] = next(steps[number]) if answer is None else steps[number].send(answer)
                except StopIteration as end:
                    results[number] = end.value
                except BadRecord as error:
                    results[number] = error
            tokenised = iter(self._tokenised([text for texts in asked.values() for text in texts]))
            answers = {number: [next(tokenised) for _ in texts] for number, texts in asked.items()}
        return results

    def _example(self, rendered: RenderedExample, whole: _Tokenised) -> Asking:
        ids: list[int] = []
        supervised: list[bool] = []
        # What tokens are taken from, where its text begins in the whole, and the first of its tokens that is left.
        piece, origin, start = whole, 0, 0
        position = 0
        runs = _runs(rendered.stretches)
        for learnt, text in runs:
            if learnt and position > 0:
                prompt = yield from self._prompt(piece, position - origin)
                if prompt[:start] != piece.ids[:start]:  # it would change an earlier answer: this one is learnt behind the joint
                    inside = yield from self._before(piece, position - origin)
                    prompt = piece.ids[: max(start, inside + self._runs_on(piece, inside, position - origin))]
                ids += prompt[start:]
                start = len(prompt)
                if prompt != piece.ids[:start]:
                    front, piece = yield from self._behind(piece, position - origin, whole.text[position:])
                    origin, start = position - len(front.text), len(front.ids)
                supervised += [False] * (len(ids) - len(supervised))
            position += len(text)
            if learnt:
                is_last = position == len(whole.text)
                end = len(piece.ids) if is_last else max(start, (yield from self._before(piece, position - origin)))
                ids += piece.ids[start:end]
                supervised += [True] * (len(ids) - len(supervised))
                start = end
        if rendered.add_eos:
            ids, supervised = [*ids, int(self.tokenizer.eos_token_id)], [*supervised, True]
        answers = sum(learnt for learnt, _ in runs) if len(rendered.stretches) > 1 else 0  # a document is one stretch
        return example_of(ids, supervised, self._bos_id, answers)

    def _prompt(self, piece: _Tokenised, end: int) -> Generator[list[str], list[_Tokenised], list[int]]:
        """The tokens of the first ``end`` characters by themselves.

        Those up to the last added token in there are the piece's. Without one, so are all but those of the last few characters: whether
        a token crosses a joint is decided near it.
        """
        anchor = self._anchor(piece, end)
        if anchor is not None:
            number, begin = anchor
            cue = piece.text[begin:end]
            tail = self._cues.get(cue)
            if tail is None:
                tail = (yield [cue])[0].ids
                if len(cue) <= _CUE_CHARACTERS:
                    _remember(self._cues, cue, tail)
            if tail[:1] == piece.ids[number : number + 1]:
                return piece.ids[:number] + tail
        elif piece.encoding is not None and end > _NEAR and (count := piece.encoding.char_to_token(end) or 0) > 1:
            if (yield from self._ends_as_alone(piece, count, end)):
                return piece.ids[:count]
            near = (yield [piece.text[end - _NEAR : end]])[0]
            if (met := _meeting(piece, near, end - _NEAR)) is not None:
                return piece.ids[: met[0]] + near.ids[met[1] :]
        return (yield [piece.text[:end]])[0].ids

    def _ends_as_alone(self, piece: _Tokenised, count: int, end: int) -> Generator[list[str], list[_Tokenised], bool]:
        """Whether the last two of ``count`` tokens by themselves end as they do here.

        Prompts end in a few ways, so that the answer is mostly remembered.
        """
        begin = piece.encoding.token_to_chars(count - 2)[0]
        pair = (piece.ids[count - 2], piece.ids[count - 1], end - begin)
        known = False if self._unknown in pair[:2] else self._ends.get(pair)
        if known is None:
            alone = (yield [piece.text[begin:end]])[0]
            known = bool(alone.ids) and _ends_alike(piece, count, end, alone)
            _remember(self._ends, pair, known)
        return known

    def _anchor(self, piece: _Tokenised, end: int) -> tuple[int, int] | None:
        """The last added token in the first ``end`` characters, its number and where it begins: what is behind it does not see beyond it."""
        if piece.encoding is None or self._added.keys().isdisjoint(piece.ids):
            return None
        number = None
        while number is None and end > 0:  # a tokenizer may have no token for white space
            end -= 1
            number = piece.encoding.char_to_token(end)
        for candidate in range(number if number is not None else -1, -1, -1):
            content = self._added.get(piece.ids[candidate])
            if content is not None:
                begin, stop = piece.encoding.token_to_chars(candidate)
                if piece.text[begin:stop].strip() == content.strip():
                    return candidate, begin
        return None

    def _before(self, piece: _Tokenised, end: int) -> Generator[list[str], list[_Tokenised], int]:
        """How many tokens lie in the first ``end`` characters; one that runs beyond them does not."""
        if piece.encoding is not None:
            return sum(stop <= end for _, stop in piece.encoding.offsets)
        return _common(piece.ids, (yield [piece.text[:end]])[0].ids)

    def _runs_on(self, piece: _Tokenised, number: int, end: int) -> bool:
        """Whether a token begins in the first ``end`` characters and runs beyond them; a tokenizer that tells no places may have one."""
        if number >= len(piece.ids):
            return False
        return piece.encoding is None or bool(piece.encoding.token_to_chars(number)[0] < end)

    def _behind(
        self, piece: _Tokenised, end: int, rest: str
    ) -> Generator[list[str], list[_Tokenised], tuple[_Tokenised, _Tokenised]]:
        """A front that ``rest`` neither melts into nor begins with a mark behind, and the two together, tokenised.

        The last added token in the first ``end`` characters of the piece is tried first, where there is one.
        """
        anchor = self._anchor(piece, end)
        fronts = _FRONTS if anchor is None else (self._added[piece.ids[anchor[0]]], *_FRONTS)
        fallback = None
        for text in fronts:
            front, both = yield [text, text + rest]
            if both.ids[: len(front.ids)] == front.ids:
                if self._reads_as(front, both):
                    return front, both
                fallback = fallback or (front, both)
        return fallback or (_Tokenised("", [], None), (yield [rest])[0])

    def _reads_as(self, front: _Tokenised, both: _Tokenised) -> bool:
        """Whether the first tokens behind the front are the text there, without a mark of a beginning."""
        count = len(front.ids)
        beginning = self._decoded(both.ids[: count + _READ_TOKENS]).rstrip(_REPLACEMENT)
        return (self._decoded(front.ids) + both.text[len(front.text) :]).startswith(beginning)

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _tokenised(self, texts: Sequence[str]) -> list[_Tokenised]:
        if not texts:
            return []
        try:
            batch = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
        except (TypeError, UnicodeEncodeError) as error:  # which of them depends on the tokenizer
            raise BadRecord(NO_CHARACTER) from error
        encodings = batch.encodings or [None] * len(texts)
        return list(map(_Tokenised, texts, batch["input_ids"], encodings))


def _meeting(piece: _Tokenised, near: _Tokenised, begin: int) -> tuple[int, int] | None:
    """Where two tokens of ``near``, the piece's text from ``begin`` on, are the piece's too, by their numbers in both; None where none are."""
    for number in range(1, len(near.ids) - 1):  # the first may be a part, or have a mark of a beginning
        place = begin + near.encoding.token_to_chars(number)[0]
        own = piece.encoding.char_to_token(place)
        alike = own is not None and piece.ids[own : own + 2] == near.ids[number : number + 2]
        if alike and piece.encoding.token_to_chars(own)[0] == place:
            return own, number
    return None


def _ends_alike(piece: _Tokenised, count: int, end: int, alone: _Tokenised) -> bool:
    """Whether the last of ``count`` tokens is that of ``alone``, which is the text up to ``end``, and begins where that does."""
    begin = piece.encoding.token_to_chars(count - 1)[0]
    begin_alone = end - len(alone.text) + alone.encoding.token_to_chars(len(alone.ids) - 1)[0]
    return bool(piece.ids[count - 1] == alone.ids[-1] and begin == begin_alone)


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[key] = value


def _runs(stretches: Sequence[Stretch]) -> list[tuple[bool, str]]:
    """Neighbours that are both learnt, or both not, as one, but for empty ones."""
    runs: list[tuple[bool, str]] = []
    for stretch in stretches:
        if runs and runs[-1][0] == stretch.learnt:
            runs[-1] = (stretch.learnt, runs[-1][1] + stretch.text)
        elif stretch.text:
            runs.append((stretch.learnt, stretch.text))
    return runs


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the beginning that two lists share."""
    return next(
        (number for number, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(second)),
    )


def example_of(ids: list[int], supervised: list[bool], bos_id: int | None, answers: int) -> Example:
    """The example with exactly one BOS, where there is one to put, and so many ``answers``. ``BadRecord`` where nothing is learnt."""
    complete = with_bos(ids, bos_id)
    added = len(complete) - len(ids)
    supervised = [False] * added + supervised if added >= 0 else supervised[-added:]
    if supervised:
        supervised[0] = False  # nothing predicts the first token
    if not any(supervised):
        raise BadRecord("it has no token to learn")
    return Example(np.array(complete, dtype=np.int32), np.array(supervised, dtype=bool), answers=answers)


def with_bos(ids: list[int], bos_id: int | None) -> list[int]:
    """Exactly one BOS: where the tokenizer wants one and the template gave none, or gave one too many."""
    if bos_id is None:
        return ids
    while ids[:2] == [bos_id, bos_id]:
        ids = ids[1:]
    return ids if ids[:1] == [bos_id] else [bos_id, *ids]


def leading_bos(tokenizer: Any) -> int | None:
    """The BOS id that the tokenizer puts in front by itself, or ``None`` where it puts none."""
    if tokenizer.bos_token_id is None:
        return None
    ids = tokenizer("a")["input_ids"]
    return int(tokenizer.bos_token_id) if ids[:1] == [tokenizer.bos_token_id] else None
