"""Where an answer begins: what the model has in front of it when it generates, and what of the rendering it then has to write.

P is the rendering of the messages in front of the answer with the generation prompt, F that of the messages up to the answer
without one; the target T is what follows P.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pitstop.trainers.data.chat.added_tokens import AddedTokens
from pitstop.trainers.data.chat.conversation import Conversation
from pitstop.trainers.data.chat.template import ChatTemplate
from pitstop.trainers.data.chat.thought import has_tag, is_empty_thought, opens_thought, thought_of
from pitstop.trainers.data.records import BadRecord

BLANK = "{count} [answer is|answers are] learnt behind white space that the chat template writes only when it asks for an answer"
EMPTY_THOUGHT = "{count} [answer is|answers are] learnt behind an empty thought that the chat template writes only when it asks"
OPENED_THOUGHT = (
    "{count} [answer|answers]: the chat template opens a thought when it asks and leaves it out of conversations; "
    "the thought and its end are learnt in front of the answer"
)


@dataclass(frozen=True)
class PromptedAnswer:
    """The message ``number`` of a conversation: ``prompt`` (P) in front of it, ``target`` (T) behind, under ``options``.

    ``added``: how many characters of the target the template did not write; ``case``: the reason for the notice where the cue
    is none that the conversation has.
    """

    number: int
    options: Mapping[str, Any]
    prompt: str
    target: str
    added: int = 0
    case: str = ""


class CueFinder:
    """Finds the answers of conversations that a template renders."""

    def __init__(self, template: ChatTemplate, tokens: AddedTokens) -> None:
        self.template, self.tokens = template, tokens

    def prompt(self, conversation: Conversation, number: int, options: Mapping[str, Any]) -> str:
        """P of the message ``number``, without the cue of a template that has no generation prompt."""
        return self.template.render_first(conversation, number, options, generation_prompt=True)

    def find(self, conversation: Conversation, number: int, option_sets: Sequence[Mapping[str, Any]]) -> PromptedAnswer:
        """The answer ``number`` under the first of ``option_sets`` that fits it. Raises ``BadRecord`` with the reason it is refused."""
        return self.find_all([conversation], number, option_sets)[0]

    def find_all(
        self, conversations: Sequence[Conversation], number: int, option_sets: Sequence[Mapping[str, Any]]
    ) -> list[PromptedAnswer]:
        """The answer ``number`` of each conversation, all under the first of ``option_sets`` that fits all of them. ``BadRecord``."""
        unfit = None
        for options in option_sets:
            prompts = [self.prompt(conversation, number, options) for conversation in conversations]
            renderings = [self.template.render_first(conversation, number + 1, options) for conversation in conversations]
            pairs = list(zip(prompts, renderings, strict=True))
            if all(_fits(prompt, rendering) for prompt, rendering in pairs):
                return [self._fitting(number, options, prompt, rendering) for prompt, rendering in pairs]
            unfit = unfit or (options, pairs)
        assert unfit is not None
        options, pairs = unfit
        return [
            self._fitting(number, options, prompt, rendering)
            if _fits(prompt, rendering)
            else self._with_foreign_cue(conversation, PromptedAnswer(number, options, prompt, ""), rendering)
            for conversation, (prompt, rendering) in zip(conversations, pairs, strict=True)
        ]

    def _fitting(self, number: int, options: Mapping[str, Any], prompt: str, rendering: str) -> PromptedAnswer:
        return self._behind_header(PromptedAnswer(number, options, prompt, rendering[len(prompt) :]))

    @cached_property
    def header(self) -> str:
        """What a template without a generation prompt writes in front of every answer, where it is more than white space."""
        question = {"role": "user", "content": "a question"}
        try:
            bare = self.template.render([question], generation_prompt=False)
            if bare != self.template.render([question], generation_prompt=True):
                return ""
            first, second = (
                self.template.render([question, {"role": "assistant", "content": text}], generation_prompt=False)
                for text in ("Yes", "No")
            )
        except BadRecord:
            return ""
        if not (first.startswith(bare) and second.startswith(bare)):
            return ""
        first, second = first[len(bare) :], second[len(bare) :]
        header = first[: self.tokens.common(first, second)]
        return header if header.strip() else ""

    def _behind_header(self, answer: PromptedAnswer) -> PromptedAnswer:
        header = self.header
        if not header or not answer.target.startswith(header) or len(answer.target) == len(header):
            return answer
        return replace(answer, prompt=answer.prompt + header, target=answer.target[len(header) :])

    def _with_foreign_cue(self, conversation: Conversation, answer: PromptedAnswer, rendering: str) -> PromptedAnswer:
        """The answer behind a cue that its conversation lacks, where the difference is white space or a thought."""
        prompt = answer.prompt
        shared = self.tokens.common(prompt, rendering)
        rest, body = prompt[shared:], rendering[shared:]
        if shared < self._end_of_last_message(conversation, answer):
            raise BadRecord("the chat template writes earlier messages differently when it asks for an answer")
        if not rest or not body:
            raise BadRecord("the chat template writes nothing for an answer")
        thought = thought_of(conversation.messages[answer.number])
        if not rest.strip():
            return replace(answer, target=body, case=BLANK)
        if is_empty_thought(rest) and not thought and not has_tag(body):
            return replace(answer, target=body, case=EMPTY_THOUGHT)
        if opens_thought(rest) and not has_tag(body):
            closing = f"{thought}\n</think>\n\n"
            return replace(answer, target=closing + body.lstrip("\n"), added=len(closing), case=OPENED_THOUGHT)
        raise BadRecord(f"the generation prompt ends in {rest.strip()!r}, which the conversation does not have")

    def _end_of_last_message(self, conversation: Conversation, answer: PromptedAnswer) -> int:
        """Where the text in front of the answer ends in its prompt."""
        content = conversation.messages[answer.number - 1].get("content")
        text = content.strip() if isinstance(content, str) else ""
        position = answer.prompt.rfind(text) if text else -1
        if position >= 0:
            return position + len(text)
        before = self.template.render_first(conversation, answer.number, answer.options)
        shared = before[: self.tokens.common(before, answer.prompt)]
        return self.tokens.end_of(shared)[0]


def _fits(prompt: str, rendering: str) -> bool:
    """Whether the rendering up to an answer is what stands in front of it, and more."""
    return rendering.startswith(prompt) and len(rendering) > len(prompt)
