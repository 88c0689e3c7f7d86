"""Conversations in the form that a template takes: roles, neighbours, system texts and thoughts, each change told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pitstop.configs.notices import Notice
from pitstop.trainers.data.chat.conversation import Conversation, Message
from pitstop.trainers.data.chat.options import RenderingOptions
from pitstop.trainers.data.chat.probe import Probe
from pitstop.trainers.data.chat.thought import is_inline, thought_of, with_field, with_inline, without_thought
from pitstop.trainers.data.records import BadRecord

FOLDED = "{count} [record|records]: the chat template takes no system message; it stands in front of the first question"
FOLDED_ON_REQUEST = "{count} [record|records]: the system message stands in front of the first question"
THOUGHT_DROPPED = "{count} [thought is|thoughts are] left out"


def fitted(conversation: Conversation, probe: Probe, options: RenderingOptions, tell: Callable[[Notice], None]) -> Conversation:
    """``conversation`` as the template of ``probe`` takes it. Raises ``BadRecord`` for what it says that the template does not render."""
    if not probe.text:
        raise BadRecord("the chat template does not render texts")
    roles = {message["role"] for message in conversation.messages}
    if "developer" in roles and not probe.template.names("developer"):
        conversation = _changed(conversation, _without_developer)
        roles.add("system")
    if options.merge_turns:
        conversation = _merged(conversation)
    if "system" in roles:
        conversation = _with_system(conversation, probe, options, tell)
    _check_tools(conversation, roles, probe)
    if any("reasoning_content" in message or is_inline(message) for message in conversation.messages):
        conversation = _with_thoughts(conversation, probe, options, tell)
    return conversation


def _changed(conversation: Conversation, change: Callable[[Message], Message]) -> Conversation:
    return replace(conversation, messages=[change(message) for message in conversation.messages])


def _without_developer(message: Message) -> Message:
    return {**message, "role": "system"} if message["role"] == "developer" else message


def _text(message: Message) -> str | None:
    content = message.get("content")
    return content if isinstance(content, str) else None


def _merged(conversation: Conversation) -> Conversation:
    """Neighbours of one role as one message, a blank line between; calls, results and answers of different weight stay apart."""
    messages: list[Message] = []
    learnt: list[bool] = []
    for message, learn in zip(conversation.messages, conversation.learnt, strict=True):
        if messages and learn == learnt[-1] and _are_neighbours(messages[-1], message):
            messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']}\n\n{message['content']}"}
        else:
            messages.append(message)
            learnt.append(learn)
    return replace(conversation, messages=messages, learnt=learnt)


def _are_neighbours(first: Message, second: Message) -> bool:
    return (
        first["role"] == second["role"] != "tool"
        and not first.get("tool_calls")
        and not second.get("tool_calls")
        and "reasoning_content" not in second
        and _text(first) is not None
        and _text(second) is not None
    )


def _with_system(
    conversation: Conversation, probe: Probe, options: RenderingOptions, tell: Callable[[Notice], None]
) -> Conversation:
    if options.system_role == "keep" or (options.system_role == "auto" and probe.system):
        return conversation
    question = next((number for number, message in enumerate(conversation.messages) if message["role"] == "user"), None)
    if question is None:
        raise BadRecord("there is no question that the system message could stand in front of")
    system = [number for number, message in enumerate(conversation.messages) if message["role"] == "system"]
    texts = [_text(conversation.messages[number]) or "" for number in (*system, question)]
    whole = {**conversation.messages[question], "content": "\n\n".join(filter(None, texts))}
    kept = [
        (whole if number == question else message, learn)
        for number, (message, learn) in enumerate(zip(conversation.messages, conversation.learnt, strict=True))
        if number not in system
    ]
    tell(Notice(FOLDED if options.system_role == "auto" else FOLDED_ON_REQUEST))
    return replace(conversation, messages=[message for message, _ in kept], learnt=[learn for _, learn in kept])


def _check_tools(conversation: Conversation, roles: set[Any], probe: Probe) -> None:
    if conversation.tools and not probe.tools:
        raise BadRecord("the chat template does not render tools")
    if any(message.get("tool_calls") for message in conversation.messages) and not probe.calls:
        raise BadRecord("the chat template does not render tool calls")
    if "tool" in roles and not probe.results:
        raise BadRecord("the chat template does not render what tools give")


def _with_thoughts(
    conversation: Conversation, probe: Probe, options: RenderingOptions, tell: Callable[[Notice], None]
) -> Conversation:
    """Thoughts where the template renders them, or as the options say where it does not."""
    dropped = 0
    messages: list[Message] = []
    for message in conversation.messages:
        if message["role"] == "assistant" and thought_of(message):
            if options.thinking == "off":
                message, dropped = without_thought(message), dropped + 1
            elif probe.thought:
                message = with_field(message) if is_inline(message) and "reasoning_content" not in message else message
            elif "reasoning_content" in message and not probe.cue_opens_thought:
                message, dropped = _without_field(message, options, dropped)
        messages.append(message)
    if dropped:
        tell(Notice(THOUGHT_DROPPED, count=dropped))
    return replace(conversation, messages=messages)


def _without_field(message: Message, options: RenderingOptions, dropped: int) -> tuple[Message, int]:
    if options.reasoning == "inline":
        return with_inline(message), dropped
    if options.reasoning == "drop":
        return without_thought(message), dropped + 1
    raise BadRecord("the chat template does not render thoughts; --reasoning inline writes them in front of the answer")


def texts_of(messages: Sequence[Message]) -> list[str]:
    """The system, user and assistant texts that a rendering is expected to hold, without thoughts and white space around them."""
    return [
        text
        for message in messages
        if message["role"] in ("system", "user", "assistant")
        and (text := (without_thought(message).get("content") or "").strip())
    ]
