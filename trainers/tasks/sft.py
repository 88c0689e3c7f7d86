"""sft: instruction and chat tuning, with the loss on completions or assistant turns only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from pitstop.configs.schema import Settings
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import Record
from pitstop.trainers.tasks.base import BadRecord
from pitstop.trainers.tasks.text import TextTask

Segment = tuple[str, bool]  # text, and whether it is supervised
Given, Made = TypeVar("Given"), TypeVar("Made")


class SftTask(TextTask):
    """Turns records into examples with the tokenizer's chat template, where it has one."""

    name = "sft"

    def __init__(self, tokenizer: Any, settings: Settings | None = None) -> None:
        super().__init__(tokenizer, settings or Settings())
        self._shapes: dict[frozenset[str], Callable[[Mapping[str, Any]], list[Segment]]] = {
            frozenset({"messages"}): self._from_messages,
            frozenset({"prompt", "completion"}): self._from_prompt,
            frozenset({"instruction", "response"}): self._from_instruction,
            frozenset({"text"}): self._from_text,
        }
        self._special_ids = _special_ids(tokenizer)
        self._bos_id = _leading_bos(tokenizer)
        self._blank: dict[int, bool] = {}

    def examples(self, record: Record) -> list[Example]:
        """One example a record. Raises ``BadRecord``."""
        return [self.encode(record)]

    def encode(self, record: Record) -> Example:
        """Tokenise one record. Raises ``BadRecord`` with the reason it cannot be used."""
        segments = self._segments(record)
        return self._assemble(segments, [self._ids(text) for text, _ in segments])

    def examples_of(self, records: Sequence[Record]) -> list[list[Example] | BadRecord]:
        """``examples`` of each record, or the error it raised, with one call of the tokenizer for all."""
        rendered = [_or_bad(self._segments, record) for record in records]
        texts = [text for segments in rendered if not isinstance(segments, BadRecord) for text, _ in segments]
        try:
            pieces = iter(self._all_ids(texts))
        except (TypeError, UnicodeEncodeError):  # some text of some record is none: find out which
            return super().examples_of(records)
        found: list[list[Example] | BadRecord] = []
        for segments in rendered:
            if isinstance(segments, BadRecord):
                found.append(segments)
                continue
            ids = [next(pieces) for _ in segments]
            example = _or_bad(lambda each, ids=ids: self._assemble(each, ids), segments)
            found.append(example if isinstance(example, BadRecord) else [example])
        return found

    def relevant_settings(self) -> Mapping[str, Any]:
        """None: how a record is rendered follows from its fields and the tokenizer."""
        return {}

    def _segments(self, record: Record) -> list[Segment]:
        """The texts of a record up to the last one that is learnt."""
        segments = self._rendered(record)
        last = max(number for number, (_, learn) in enumerate(segments) if learn)
        return segments[: last + 1]

    def _rendered(self, record: Record) -> list[Segment]:
        fields = record.fields
        for keys, render in self._shapes.items():
            if keys <= fields.keys():
                return render(fields)
        found = ", ".join(sorted(fields)) or "none"
        raise BadRecord(
            f"none of the known record shapes (prompt+completion, instruction+response, messages, text); its fields: {found}"
        )

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids that ``prompt`` has in front of a completion: what generation starts from."""
        return self.rendered_ids(self.turn(prompt, "x")[0])

    def rendered_ids(self, text: str) -> list[int]:
        """The token ids of a text that begins a conversation as the template renders it, with its BOS."""
        return self._with_bos(self._ids(text))

    def turn(self, prompt: str, completion: str) -> tuple[str, str]:
        """The text in front of an answer, and what becomes of ``completion`` behind it, with whatever the template adds."""
        segments = self._from_prompt({"prompt": prompt, "completion": completion})
        return segments[0][0], segments[1][0]

    def conversation_ids(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """The token ids in front of the assistant's next turn, each earlier turn tokenised as training did.

        ``turns`` are messages that end with the user's. Raises ``BadRecord`` where there is no chat template, or it refuses them.
        """
        segments = self._from_messages({"messages": [*turns, {"role": "assistant", "content": "x"}]})
        last = max(number for number, (_, learn) in enumerate(segments) if learn)
        return self._with_bos([token for text, _ in segments[:last] for token in self._ids(text)])

    # Record shapes -----------------------------------------------------------------------------------------------

    def _from_prompt(self, fields: Mapping[str, Any]) -> list[Segment]:
        prompt, completion = _text(fields, "prompt"), _text(fields, "completion")
        if not completion.strip():
            raise BadRecord("the completion is empty")
        if self.tokenizer.chat_template is None:
            return [(prompt, False), (completion, True)]
        return self._chat([{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}])

    def _from_instruction(self, fields: Mapping[str, Any]) -> list[Segment]:
        instruction, response = _text(fields, "instruction"), _text(fields, "response")
        extra = _text(fields, "input") if fields.get("input") else ""
        if self.tokenizer.chat_template is None:
            context = f"\n\n### Input:\n{extra}" if extra else ""
            prompt = f"### Instruction:\n{instruction}{context}\n\n### Response:\n"
        else:
            prompt = f"{instruction}\n\n{extra}" if extra else instruction
        return self._from_prompt({"prompt": prompt, "completion": response})

    def _from_messages(self, fields: Mapping[str, Any]) -> list[Segment]:
        messages = fields["messages"]
        if not isinstance(messages, list) or not messages:
            raise BadRecord("'messages' is not a list with at least one message")
        for number, message in enumerate(messages, start=1):
            if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
                raise BadRecord(f"message {number} needs a 'role' and a 'content', both text")
        if not any(message["role"] == "assistant" for message in messages[1:]):
            raise BadRecord("no message with the role 'assistant' follows another one, so there is nothing to learn")
        if self.tokenizer.chat_template is None:
            raise BadRecord("the model's tokenizer has no chat template; give prompt and completion instead")
        return self._chat(messages)

    def _from_text(self, fields: Mapping[str, Any]) -> list[Segment]:
        text = _text(fields, "text")
        if not text:
            raise BadRecord("'text' is empty")
        return [(text, True)]

    # Chat templates ----------------------------------------------------------------------------------------------

    def _chat(self, messages: list[dict[str, str]]) -> list[Segment]:
        """Cut the rendered conversation into supervised assistant turns and the rest.

        A turn starts where the template's generation prompt ends. Some templates render an earlier turn differently
        once another follows (hidden reasoning is dropped, say); such a turn would not be what the model sees when it
        generates, so only turns whose rendering is stable are supervised, the last always. A turn that opens the
        conversation answers nothing and is not supervised either.
        """
        whole = self._render(messages, generation_prompt=False)
        segments: list[Segment] = []
        cursor = 0
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index == 0:
                continue
            before = self._render(messages[:index], generation_prompt=True)
            through = self._render(messages[: index + 1], generation_prompt=False)
            if whole.startswith(before) and whole.startswith(through) and len(through) > len(before) >= cursor:
                segments += [(whole[cursor : len(before)], False), (whole[len(before) : len(through)], True)]
                cursor = len(through)
        if not segments:
            raise BadRecord("the chat template renders the conversation so that its assistant turns cannot be told apart")
        if cursor < len(whole):
            segments.append((whole[cursor:], False))
        return segments

    def _render(self, messages: list[dict[str, str]], *, generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt))
        except (TemplateError, TypeError, ValueError) as error:  # the latter two from a template's own arithmetic
            raise BadRecord(f"the chat template refuses it: {error}") from error

    # Tokens ------------------------------------------------------------------------------------------------------

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        except (TypeError, UnicodeEncodeError) as error:  # which of them depends on the tokenizer
            raise BadRecord("its text has half of a surrogate pair, which is no character") from error

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Exactly one BOS: where the tokenizer wants one and the template gave none, or gave one too many."""
        if self._bos_id is None:
            return ids
        while ids[:2] == [self._bos_id, self._bos_id]:
            ids = ids[1:]
        return ids if ids[:1] == [self._bos_id] else [self._bos_id, *ids]

    def _all_ids(self, texts: Sequence[str]) -> list[list[int]]:
        filled = [text for text in texts if text]
        found = iter(self.tokenizer(filled, add_special_tokens=False, return_attention_mask=False)["input_ids"] if filled else ())
        return [list(next(found)) if text else [] for text in texts]

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
        return Example(np.array(with_bos, dtype=np.int32), np.array(supervised, dtype=bool))

    def _end_turn(self, ids: list[int], *, is_last: bool) -> tuple[list[int], list[bool]]:
        """Supervise a turn up to and with its end token; drop what a template puts behind the last one.

        A turn that ends without any special token gets the tokenizer's end-of-sequence token if it is the last.
        """
        tail = len(ids)
        while tail and ids[tail - 1] not in self._special_ids and self._is_blank(ids[tail - 1]):
            tail -= 1
        if tail and ids[tail - 1] in self._special_ids:
            kept = ids[:tail] if is_last else ids
            return kept, [position < tail for position in range(len(kept))]
        if is_last:
            ids = [*ids, self.tokenizer.eos_token_id]
        return ids, [True] * len(ids)

    def _is_blank(self, token: int) -> bool:
        """Whether a token is white space; each is decoded once."""
        if token not in self._blank:
            self._blank[token] = not self.tokenizer.decode([token]).strip()
        return self._blank[token]


def _or_bad(make: Callable[[Given], Made], given: Given) -> Made | BadRecord:
    try:
        return make(given)
    except BadRecord as error:
        return error


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields[key]
    if not isinstance(value, str):
        raise BadRecord(f"'{key}' is not text but {type(value).__name__}")
    return value


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
