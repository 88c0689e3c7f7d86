"""The first version of the rendering: what a record becomes in a run whose config.json names no version.

Each segment is tokenised by itself, so that a tokenizer that marks the beginning of a text does so at every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pitstop.trainers.data.chat.conversation import Message
from pitstop.trainers.data.chat.template import NO_TEMPLATE, ChatTemplate
from pitstop.trainers.data.chat.tokens import NO_CHARACTER, example_of, leading_bos, with_bos
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord

Fields = Mapping[str, Any]
Segment = tuple[str, bool]
"""A text, and whether it is supervised."""


class FirstTokens:
    """Tokenises segments one by one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._bos_id = leading_bos(tokenizer)
        self._special_ids = _special_ids(tokenizer)
        self._blank: dict[int, bool] = {}

    def examples_of(self, rendered: Sequence[Sequence[Segment]]) -> list[Example | BadRecord]:
        """The example of each, or why there is none, with one call of the tokenizer for all."""
        try:
            pieces = iter(self._all_ids([text for segments in rendered for text, _ in segments]))
        except BadRecord as error:  # which of them it is
            return [error] if len(rendered) == 1 else [self.examples_of([segments])[0] for segments in rendered]
        examples: list[Example | BadRecord] = []
        for segments in rendered:
            try:
                examples.append(self._assemble(segments, [next(pieces) for _ in segments]))
            except BadRecord as error:
                examples.append(error)
        return examples

    def context_ids(self, segments: Sequence[Segment]) -> list[int]:
        """The token ids of what is in front of an answer. ``BadRecord``."""
        return with_bos([token for ids in self._all_ids([text for text, _ in segments]) for token in ids], self._bos_id)

    def _all_ids(self, texts: Sequence[str]) -> list[list[int]]:
        filled = [text for text in texts if text]
        try:
            ids = iter(
                self.tokenizer(filled, add_special_tokens=False, return_attention_mask=False)["input_ids"] if filled else ()
            )
        except (TypeError, UnicodeEncodeError) as error:  # which of the two depends on the tokenizer
            raise BadRecord(NO_CHARACTER) from error
        return [list(next(ids)) if text else [] for text in texts]

    def _assemble(self, segments: Sequence[Segment], pieces: Sequence[list[int]]) -> Example:
        ids: list[int] = []
        supervised: list[bool] = []
        last = len(segments) - 1
        for number, ((_, learn), piece) in enumerate(zip(segments, pieces, strict=True)):
            flags = [learn] * len(piece)
            if learn:
                piece, flags = self._end_turn(piece, is_last=number == last)
            ids += piece
            supervised += flags
        answers = sum(learn for _, learn in segments) if last else 0  # a document is one segment
        return example_of(ids, supervised, self._bos_id, answers)

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


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids that may end a turn. The unknown token is not among them: an unknown word at the end ends nothing."""
    added = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}
    return (frozenset(tokenizer.all_special_ids) | frozenset(added)) - unknown


def segments_of(fields: Fields, template: ChatTemplate) -> list[Segment]:
    """The texts of a record, one behind the other, up to the last that is supervised. Raises ``BadRecord``."""
    segments = _segments(fields, template)
    last = max(number for number, (_, learn) in enumerate(segments) if learn)
    return segments[: last + 1]


def _segments(fields: Fields, template: ChatTemplate) -> list[Segment]:
    for keys, render in _SHAPES.items():
        if keys <= fields.keys():
            return render(fields, template)
    raise BadRecord(
        "none of the known record shapes (prompt+completion, instruction+response, messages, text); "
        f"its fields: {', '.join(sorted(fields)) or 'none'}"
    )


def _from_prompt(fields: Fields, template: ChatTemplate) -> list[Segment]:
    prompt, completion = _text(fields, "prompt"), _text(fields, "completion")
    if not completion.strip():
        raise BadRecord("the completion is empty")
    if template.text is None:
        return [(prompt, False), (completion, True)]
    return _by_template([{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}], template)


def _from_instruction(fields: Fields, template: ChatTemplate) -> list[Segment]:
    instruction, response = _text(fields, "instruction"), _text(fields, "response")
    extra = _text(fields, "input") if fields.get("input") else ""
    if template.text is None:
        context = f"\n\n### Input:\n{extra}" if extra else ""
        prompt = f"### Instruction:\n{instruction}{context}\n\n### Response:\n"
    else:
        prompt = f"{instruction}\n\n{extra}" if extra else instruction
    return _from_prompt({"prompt": prompt, "completion": response}, template)


def _from_messages(fields: Fields, template: ChatTemplate) -> list[Segment]:
    messages = fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise BadRecord("'messages' is not a list with at least one message")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise BadRecord(f"message {number} needs a 'role' and a 'content', both text")
    if not any(message["role"] == "assistant" for message in messages[1:]):
        raise BadRecord("no message with the role 'assistant' follows another one, so there is nothing to learn")
    if template.text is None:
        raise BadRecord(NO_TEMPLATE)
    return _by_template(messages, template)


def _from_text(fields: Fields, template: ChatTemplate) -> list[Segment]:
    del template
    text = _text(fields, "text")
    if not text:
        raise BadRecord("'text' is empty")
    return [(text, True)]


_SHAPES: dict[frozenset[str], Callable[[Fields, ChatTemplate], list[Segment]]] = {
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


def _by_template(messages: Sequence[Message], template: ChatTemplate) -> list[Segment]:
    """Cut the rendered conversation into supervised assistant turns and the rest.

    A turn starts where the template's generation prompt ends. Some templates render an earlier turn differently
    once another follows (hidden reasoning is dropped, say); such a turn would not be what the model sees when it
    generates, so only turns whose rendering is stable are supervised, the last always. A turn that opens the
    conversation answers nothing and is not supervised either.
    """
    conversation = template.render(messages, generation_prompt=False)
    segments: list[Segment] = []
    cursor = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index == 0:
            continue
        prefix = template.render(messages[:index], generation_prompt=True)
        answered = template.render(messages[: index + 1], generation_prompt=False)
        stable = conversation.startswith(prefix) and conversation.startswith(answered)
        if stable and len(answered) > len(prefix) >= cursor:
            segments += [(conversation[cursor : len(prefix)], False), (conversation[len(prefix) : len(answered)], True)]
            cursor = len(answered)
    if not segments:
        raise BadRecord("the chat template renders the conversation so that its assistant turns cannot be told apart")
    if cursor < len(conversation):
        segments.append((conversation[cursor:], False))
    return segments
