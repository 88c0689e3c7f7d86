"""The normal form of a record as texts, one behind the other, some of which are learnt."""

from __future__ import annotations

from pitstop.trainers.data.chat.conversation import Conversation, Document, Form, TextPair
from pitstop.trainers.data.chat.first_version import Segment
from pitstop.trainers.data.chat.template import ChatTemplate
from pitstop.trainers.data.records import BadRecord


def segments_of_form(form: Form, template: ChatTemplate) -> list[Segment]:
    """The texts of ``form``, up to the last that is learnt. Raises ``BadRecord``."""
    if isinstance(form, Document):
        return [(form.text, True)]
    if isinstance(form, TextPair):
        return [(form.prompt, False), (form.completion, True)]
    return _by_template(form, template)


def _by_template(form: Conversation, template: ChatTemplate) -> list[Segment]:
    """Cut the rendered conversation into its learnt answers and the rest.

    An answer starts where the template's generation prompt ends. One that the template renders differently once another message follows
    is not what the model sees when it generates, so that only answers whose rendering is stable are learnt, the last always.
    """

    def render(count: int, *, generation_prompt: bool) -> str:
        return template.render(
            form.messages[:count],
            generation_prompt=generation_prompt,
            tools=form.tools,
            documents=form.documents,
            options=form.options,
        )

    conversation = render(len(form.messages), generation_prompt=False)
    segments: list[Segment] = []
    cursor = 0
    for index, is_learnt in enumerate(form.learnt):
        if not is_learnt:
            continue
        prefix, answered = render(index, generation_prompt=True), render(index + 1, generation_prompt=False)
        stable = conversation.startswith(prefix) and conversation.startswith(answered)
        if stable and len(answered) > len(prefix) >= cursor:
            segments += [(conversation[cursor : len(prefix)], False), (conversation[len(prefix) : len(answered)], True)]
            cursor = len(answered)
    if not segments:
        raise BadRecord("the chat template renders the conversation so that its assistant turns cannot be told apart")
    return segments
