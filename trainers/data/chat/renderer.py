"""The chat renderer: records and messages as token ids, and which of them are learnt.

Every task of text renders through it, and so does generation: a prompt's tokens are those that training saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord

Fields = Mapping[str, Any]
Message = Mapping[str, str]
"""``role`` and ``content``."""
Segment = tuple[str, bool]  # text, and whether it is supervised
Source = TypeVar("Source")
Rendered = TypeVar("Rendered")


class ChatRenderer:
    """Turns the fields of a record, or the messages of a conversation, into token ids by the tokenizer's chat template.

    A tokenizer without a template has prompt and completion one after the other. Whatever cannot be rendered raises ``BadRecord``.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._special_ids = _special_ids(tokenizer)
        self._bos_id = _leading_bos(tokenizer)
        self._blank: dict[int, bool] = {}

    def encode(self, fields: Fields) -> Example:
        """Tokenise one record. Raises ``BadRecord`` with the reason it cannot be used."""
        segments = self._learnt_segments(fields)
        return self._assemble(segments, [self._ids(text) for text, _ in segments])

    def encode_all(self, records: Sequence[Fields]) -> list[Example | BadRecord]:
        """``encode`` of each record, or the error it raised, with one call of the tokenizer for all."""
        rendered = [_or_bad(self._learnt_segments, fields) for fields in records]
        texts = [text for segments in rendered if not isinstance(segments, BadRecord) for text, _ in segments]
        try:
            pieces = iter(self._all_ids(texts))
        except (TypeError, UnicodeEncodeError):  # the text of one record is no text: find out which
            return [_or_bad(self.encode, fields) for fields in records]
        examples: list[Example | BadRecord] = []
        for segments in rendered:
            if isinstance(segments, BadRecord):
                examples.append(segments)
            else:
                ids = [next(pieces) for _ in segments]
                examples.append(_or_bad(partial(self._assemble, pieces=ids), segments))
        return examples

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids that ``prompt`` has in front of a completion: what generation starts from."""
        return self.opening_ids(self.turn(prompt, "x")[0])

    def opening_ids(self, text: str) -> list[int]:
        """The token ids of a text that begins a conversation as the template renders it, with its BOS."""
        return self._with_bos(self._ids(text))

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids in front of the assistant's next turn, each earlier turn tokenised as training did.

        The last message is the user's. Raises ``BadRecord`` where there is no chat template, or it refuses them.
        """
        segments = _from_messages({"messages": [*messages, {"role": "assistant", "content": "x"}]}, self.tokenizer)
        last = max(number for number, (_, learn) in enumerate(segments) if learn)
        return self._with_bos([token for text, _ in segments[:last] for token in self._ids(text)])

    def turn(self, prompt: str, completion: str) -> tuple[str, str]:
        """The text in front of an answer, and what becomes of ``completion`` behind it, with whatever the template adds."""
        (prefix, _), (answer, _), *_ = _from_prompt({"prompt": prompt, "completion": completion}, self.tokenizer)
        return prefix, answer

    @cached_property
    def end_id(self) -> int:
        """The token that training puts behind an assistant's last turn: the template's, or the end of sequence."""
        return self._end_turn(self._ids(self.turn("x", "x")[1]), is_last=True)[0][-1]

    def _learnt_segments(self, fields: Fields) -> list[Segment]:
        """The texts of a record up to the last one that is learnt."""
        segments = _segments(fields, self.tokenizer)
        last = max(number for number, (_, learn) in enumerate(segments) if learn)
        return segments[: last + 1]

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        except (TypeError, UnicodeEncodeError) as error:  # which of them depends on the tokenizer
            raise BadRecord("its text has half of a surrogate pair, which is no character") from error

    def _all_ids(self, texts: Sequence[str]) -> list[list[int]]:
        filled = [text for text in texts if text]
        ids = iter(self.tokenizer(filled, add_special_tokens=False, return_attention_mask=False)["input_ids"] if filled else ())
        return [list(next(ids)) if text else [] for text in texts]

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Exactly one BOS: where the tokenizer wants one and the template gave none, or gave one too many."""
        if self._bos_id is None:
            return ids
        while ids[:2] == [self._bos_id, self._bos_id]:
            ids = ids[1:]
        return ids if ids[:1] == [self._bos_id] else [self._bos_id, *ids]

    def _assemble(self, segments: list[Segment], pieces: list[list[int]]) -> Example:
        """Each segment is tokenised by itself, so that the prompt's tokens are those that generation will see."""
        ids: list[int] = []
        supervised: list[bool] = []
        last = len(segments) - 1
        for number, ((_, learn), piece) in enumerate(zip(segments, pieces, strict=True)):
            flags = [learn] * len(piece)
            if learn:
                piece, flags = self._end_turn(piece, is_last=number == last)
            ids += piece
            supervised += flags
        with_bos = self._with_bos(ids)
        added = len(with_bos) - len(ids)
        supervised = [False] * added + supervised if added >= 0 else supervised[-added:]
        supervised[0] = False  # nothing predicts the first token
        if not any(supervised):
            raise BadRecord("it has no token to learn")
        answers = sum(learn for _, learn in segments) if last else 0  # a document is one segment
        return Example(np.array(with_bos, dtype=np.int32), np.array(supervised, dtype=bool), answers=answers)

    def _end_turn(self, ids: list[int], *, is_last: bool) -> tuple[list[int], list[bool]]:
        """Supervise a turn up to and with its end token; drop what a template puts behind the last one.

        A turn that ends without any special token gets the tokenizer's end-of-sequence token if it is the last.
        """
        tail = len(ids)
        while tail and ids[tail - 1] not in self._special_ids and self._is_blank(ids[tail - 1]):
            tail -= 1
        if tail and ids[tail - 1] in self._special_ids:
            turn = ids[:tail] if is_last else ids
            return turn, [position < tail for position in range(len(turn))]
        if is_last:
            ids = [*ids, int(self.tokenizer.eos_token_id)]
        return ids, [True] * len(ids)

    def _is_blank(self, token: int) -> bool:
        """Whether a token is white space; each is decoded once."""
        if token not in self._blank:
            self._blank[token] = not self.tokenizer.decode([token]).strip()
        return self._blank[token]


def _or_bad(render: Callable[[Source], Rendered], source: Source) -> Rendered | BadRecord:
    try:
        return render(source)
    except BadRecord as error:
        return error


# Record shapes -------------------------------------------------------------------------------------------------------


def _segments(fields: Fields, tokenizer: Any) -> list[Segment]:
    for keys, render in _SHAPES.items():
        if keys <= fields.keys():
            return render(fields, tokenizer)
    raise BadRecord(
        "none of the known record shapes (prompt+completion, instruction+response, messages, text); "
        f"its fields: {', '.join(sorted(fields)) or 'none'}"
    )


def _from_prompt(fields: Fields, tokenizer: Any) -> list[Segment]:
    prompt, completion = _text(fields, "prompt"), _text(fields, "completion")
    if not completion.strip():
        raise BadRecord("the completion is empty")
    if tokenizer.chat_template is None:
        return [(prompt, False), (completion, True)]
    return _by_template([{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}], tokenizer)


def _from_instruction(fields: Fields, tokenizer: Any) -> list[Segment]:
    instruction, response = _text(fields, "instruction"), _text(fields, "response")
    extra = _text(fields, "input") if fields.get("input") else ""
    if tokenizer.chat_template is None:
        context = f"\n\n### Input:\n{extra}" if extra else ""
        prompt = f"### Instruction:\n{instruction}{context}\n\n### Response:\n"
    else:
        prompt = f"{instruction}\n\n{extra}" if extra else instruction
    return _from_prompt({"prompt": prompt, "completion": response}, tokenizer)


def _from_messages(fields: Fields, tokenizer: Any) -> list[Segment]:
    messages = fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise BadRecord("'messages' is not a list with at least one message")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise BadRecord(f"message {number} needs a 'role' and a 'content', both text")
    if not any(message["role"] == "assistant" for message in messages[1:]):
        raise BadRecord("no message with the role 'assistant' follows another one, so there is nothing to learn")
    if tokenizer.chat_template is None:
        raise BadRecord("the model's tokenizer has no chat template; give prompt and completion instead")
    return _by_template(messages, tokenizer)


def _from_text(fields: Fields, tokenizer: Any) -> list[Segment]:
    del tokenizer
    text = _text(fields, "text")
    if not text:
        raise BadRecord("'text' is empty")
    return [(text, True)]


_SHAPES: dict[frozenset[str], Callable[[Fields, Any], list[Segment]]] = {
    frozenset({"messages"}): _from_messages,
    frozenset({"prompt", "completion"}): _from_prompt,
    frozenset({"instruction", "response"}): _from_instruction,
    frozenset({"text"}): _from_text,
}
"""Fields of a record to what renders it; the first that fits."""


def _text(fields: Fields, key: str) -> str:
    value = fields[key]
    if not isinstance(value, str):
        raise BadRecord(f"'{key}' is not text but {type(value).__name__}")
    return value


# The template and the tokenizer --------------------------------------------------------------------------------------


def _by_template(messages: Sequence[Message], tokenizer: Any) -> list[Segment]:
    """Cut the rendered conversation into supervised assistant turns and the rest.

    A turn starts where the template's generation prompt ends. Some templates render an earlier turn differently
    once another follows (hidden reasoning is dropped, say); such a turn would not be what the model sees when it
    generates, so only turns whose rendering is stable are supervised, the last always. A turn that opens the
    conversation answers nothing and is not supervised either.
    """
    conversation = _render(messages, tokenizer, generation_prompt=False)
    segments: list[Segment] = []
    cursor = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index == 0:
            continue
        prefix = _render(messages[:index], tokenizer, generation_prompt=True)
        answered = _render(messages[: index + 1], tokenizer, generation_prompt=False)
        stable = conversation.startswith(prefix) and conversation.startswith(answered)
        if stable and len(answered) > len(prefix) >= cursor:
            segments += [(conversation[cursor : len(prefix)], False), (conversation[len(prefix) : len(answered)], True)]
            cursor = len(answered)
    if not segments:
        raise BadRecord("the chat template renders the conversation so that its assistant turns cannot be told apart")
    if cursor < len(conversation):
        segments.append((conversation[cursor:], False))
    return segments


def _render(messages: Sequence[Message], tokenizer: Any, *, generation_prompt: bool) -> str:
    """The conversation as the template writes it. ``BadRecord`` for whatever a template, which is a program, stumbles over in it."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt))
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise BadRecord(f"the chat template refuses it: {error}") from error


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that may end a turn. The unknown token is not among them: an unknown word at the end ends nothing."""
    added = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
    return (frozenset(tokenizer.all_special_ids) | frozenset(added)) - unknown


def _leading_bos(tokenizer: Any) -> int | None:
    """The BOS id that the tokenizer puts in front by itself, or ``None`` where it puts none."""
    if tokenizer.bos_token_id is None:
        return None
    ids = tokenizer("a")["input_ids"]
    return int(tokenizer.bos_token_id) if ids[:1] == [tokenizer.bos_token_id] else None
