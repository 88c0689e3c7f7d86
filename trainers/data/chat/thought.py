"""The thought in front of an answer: in a field of its own, or as ``<think>…</think>`` that opens the content."""

from __future__ import annotations

import re

from pitstop.trainers.data.chat.conversation import Message

_INLINE = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<|channel>thought")
_EMPTY = re.compile(r"\s*(<think>\s*</think>|<\|channel>thought\n<channel\|>)\s*")
_OPENED = re.compile(r"<think>\s*\Z")


def thought_of(message: Message) -> str:
    """The thought of an answer, without line breaks around it; nothing where it has none."""
    thought = message.get("reasoning_content")
    if not isinstance(thought, str):
        content = message.get("content")
        inline = _INLINE.match(content) if isinstance(content, str) else None
        thought = inline[1] if inline else ""
    return thought.strip("\n")


def is_inline(message: Message) -> bool:
    """Whether the thought stands in the content."""
    content = message.get("content")
    return isinstance(content, str) and content.lstrip().startswith("<think>") and _INLINE.match(content) is not None


def own_content(message: Message) -> str:
    """The text of a message without a thought that opens it."""
    content = message.get("content")
    if not isinstance(content, str):
        return ""
    return _INLINE.sub("", content, count=1) if is_inline(message) else content


def without_thought(message: Message) -> Message:
    """The message with neither field nor inline thought."""
    bare = {key: value for key, value in message.items() if key != "reasoning_content"}
    return {**bare, "content": own_content(message)} if is_inline(message) else bare


def with_field(message: Message) -> Message:
    """An inline thought moved to ``reasoning_content``."""
    return {**message, "reasoning_content": thought_of(message), "content": own_content(message)}


def with_inline(message: Message) -> Message:
    """The thought of ``reasoning_content`` moved in front of the content, as models write it."""
    bare = {key: value for key, value in message.items() if key != "reasoning_content"}
    return {**bare, "content": f"<think>\n{thought_of(message)}\n</think>\n\n{message.get('content') or ''}"}


def has_tag(text: str) -> bool:
    """Whether any tag of a thought stands in ``text``."""
    return any(tag in text for tag in _TAGS)


def is_empty_thought(text: str) -> bool:
    """Whether ``text`` is a thought without a word in it, and nothing else."""
    return _EMPTY.fullmatch(text) is not None


def opens_thought(text: str) -> bool:
    """Whether ``text`` is the beginning of a thought, white space in front of it aside."""
    return _OPENED.fullmatch(text.lstrip()) is not None
