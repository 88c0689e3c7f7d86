"""What a record is once its shape is recognised: a conversation, a text pair without a template, or a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""As chat templates take it: ``role``, ``content`` (text, parts, or missing beside ``tool_calls`` with arguments as objects), and where
the record has them ``reasoning_content``, ``name``, ``tool_call_id`` and keys of its own."""


@dataclass(frozen=True)
class Conversation:
    """Messages that end with an answer. ``learnt`` says of each message whether it is an answer to be learnt; one at least is.

    ``tools`` and ``documents`` go to the template as they are, ``options`` are the record's own ``chat_template_kwargs``.
    """

    messages: Sequence[Message]
    learnt: Sequence[bool]
    tools: Sequence[Mapping[str, Any]] = ()
    documents: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextPair:
    """A question and its answer as they stand, for a tokenizer without a chat template."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Document:
    """A text, all of which is learnt, with the end of sequence behind it."""

    text: str


Form = Conversation | TextPair | Document
"""The normal form of a record."""


@dataclass(frozen=True)
class Preference:
    """A question with an answer that is better and one that is worse; or with one answer that was judged, the other being None.

    Conversations are equal in front of the first answer that is learnt, text pairs have the same prompt. ``margin`` says by how much the
    one is better, where the record does.
    """

    chosen: Conversation | TextPair | None
    rejected: Conversation | TextPair | None
    margin: float | None = None

    @property
    def answers(self) -> Sequence[Conversation | TextPair]:
        """Those that there are, the better one first."""
        return [answer for answer in (self.chosen, self.rejected) if answer is not None]


@dataclass(frozen=True)
class Stretch:
    """A piece of a rendered example, all of which is learnt, or nothing."""

    text: str
    learnt: bool


@dataclass(frozen=True)
class RenderedExample:
    """Stretches in order, the last of them learnt; their texts together are the example.

    Where a learnt stretch begins, what stands in front of it is all that the model will have in front of it when it generates.
    ``add_eos``: the end of sequence follows and is learnt, since the last stretch ends in no special token. ``answers`` are learnt in it.
    ``options`` are those that the template asks for them with, None where it does not ask.
    """

    stretches: Sequence[Stretch]
    add_eos: bool = False
    answers: int = 1
    options: Mapping[str, Any] | None = None
