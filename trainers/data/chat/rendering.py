"""From a conversation to examples: each answer learnt once, behind exactly what the model has in front of it when it generates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from pitstop.configs.notices import Notice
from pitstop.trainers.data.chat.added_tokens import AddedTokens
from pitstop.trainers.data.chat.conversation import Conversation, Message, RenderedExample, Stretch
from pitstop.trainers.data.chat.cue import CueFinder, PromptedAnswer
from pitstop.trainers.data.chat.fitting import fitted, texts_of
from pitstop.trainers.data.chat.learnt import LearntParts, Span
from pitstop.trainers.data.chat.options import RenderingOptions, option_sets, thinking_variable
from pitstop.trainers.data.chat.probe import Probe
from pitstop.trainers.data.chat.template import ChatTemplate
from pitstop.trainers.data.chat.thought import thought_of
from pitstop.trainers.data.records import BadRecord

NO_CUE = "The chat template has no generation prompt; answers are learnt behind {subject}, and generate starts there"
OWN_SYSTEM_TEXT = "The chat template writes a system text of its own: {subject}"
LEFT_OUT = "{count} [answer is|answers are] not learnt: {subject}"
WITHOUT_END = "{count} [answer is|answers are] learnt in place without [its|their] end token, which the last answer teaches"
UNROLLED = "{count} [record gives|records give] several examples, since the chat template renders earlier answers differently"
SKIPPED = "{count} [answer is|answers are] not learnt, since the chat template renders earlier answers differently"
THINKING = "{count} [answer is|answers are] learnt behind another prompt than the chat template's usual one; ask with {subject}"
CHANGED_TEXT = "in {count} [record|records] the chat template changes a text"
UNKNOWN_OPTION = "{count} [record names an option|records name options] that the chat template does not use: {subject}"


@dataclass
class Rendering:
    """What a conversation gives: at least one example, all of one group; the reasons for which answers are not learnt, each with their
    number; and what else there is to tell.
    """

    examples: list[RenderedExample] = field(default_factory=list)
    unlearnt: list[Notice] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def leave_out(self, reason: str, subject: str = "", count: int = 1) -> None:
        """Tell of answers that are not learnt."""
        self.unlearnt.append(Notice(reason, subject, count, loss=True))


@dataclass(frozen=True)
class _Target:
    """An answer, the learnt spans of its target, and where its own text stops there."""

    answer: PromptedAnswer
    spans: Sequence[Span]
    own_end: int


class ConversationRenderer:
    """Renders conversations by one chat template.

    ``stops`` are the texts of the tokens at which generation stops, beside the end of sequence.
    """

    def __init__(
        self, template: ChatTemplate, tokens: AddedTokens, options: RenderingOptions, *, stops: frozenset[str] = frozenset()
    ) -> None:
        self.template, self.tokens, self.options, self.stops = template, tokens, options, stops
        self.finder, self.parts = CueFinder(template, tokens), LearntParts(template, tokens)

    @cached_property
    def probe(self) -> Probe:
        """What the template renders."""
        return Probe(self.template, self.tokens)

    @cached_property
    def _thinking_variable(self) -> str | None:
        return thinking_variable(self.template)

    def template_notices(self) -> list[Notice]:
        """What is to be told of the template itself."""
        notices = []
        if self.finder.header:
            notices.append(Notice(NO_CUE, repr(self.finder.header)))
        if text := self.probe.own_system_text:
            notices.append(Notice(OWN_SYSTEM_TEXT, repr(text[:60])))
        return notices

    def render(self, conversation: Conversation) -> Rendering:
        """The examples of ``conversation``. Raises ``BadRecord`` with the reason there is none."""
        rendering = Rendering()
        conversation = fitted(conversation, self.probe, self.options, rendering.notices.append)
        chosen = self._options(conversation, rendering.notices)
        if self.options.everything:
            rendering.examples.append(self._everything(conversation, chosen))
            return rendering
        targets = self._targets(conversation, chosen, rendering)
        self._add_examples(targets, rendering)
        if not _hold([target.answer for target in targets], texts_of(conversation.messages[: targets[0].answer.number + 1])):
            rendering.notices.append(Notice(CHANGED_TEXT, loss=True))
        return rendering

    def render_alike(self, conversations: Sequence[Conversation]) -> tuple[str, Rendering]:
        """The prompt of conversations that part at an answer, and one example of each: their answers behind it under the same options.

        Further answers are learnt only where they stand in place behind the first. Raises ``BadRecord``.
        """
        rendering = Rendering()
        alike = [fitted(conversation, self.probe, self.options, rendering.notices.append) for conversation in conversations]
        chosen = self._options(alike[0], rendering.notices)
        number = alike[0].learnt.index(True)
        sets: list[Mapping[str, Any]] = []
        for conversation in alike:
            has_thought = bool(thought_of(conversation.messages[number]))
            of_one = option_sets(self._thinking_variable, chosen, self.options.thinking, has_thought=has_thought)
            sets += [options for options in of_one if options not in sets]
        answers = self.finder.find_all(alike, number, sets)
        if any(answer.prompt != answers[0].prompt for answer in answers):
            raise BadRecord("the chat template writes its answers behind different prompts")
        for conversation, answer in zip(alike, answers, strict=True):
            rendering.examples.append(self._in_place(conversation, answer, sets[0], rendering))
            if not _hold([answer], texts_of(conversation.messages[: answer.number + 1])):
                rendering.notices.append(Notice(CHANGED_TEXT, loss=True))
        of_record = dict.fromkeys(notice for notice in rendering.notices if "[record" in notice.reason)  # it counts once
        rendering.notices = [*of_record, *(notice for notice in rendering.notices if notice not in of_record)]
        return answers[0].prompt, rendering

    def _in_place(
        self, conversation: Conversation, answer: PromptedAnswer, usual: Mapping[str, Any], rendering: Rendering
    ) -> RenderedExample:
        """The example that begins with ``answer`` and has as many of those behind it as stand there as they were generated."""
        first = self._target_of(conversation, answer, usual, rendering)
        targets = [first]
        for number in range(answer.number + 1, len(conversation.messages)):
            if conversation.learnt[number]:
                try:
                    later = self.finder.find(conversation, number, (answer.options,))
                    targets.append(self._target_of(conversation, later, usual, rendering))
                except BadRecord as error:
                    rendering.leave_out(LEFT_OUT, str(error))
        count = len(targets)
        while True:
            *earlier, last = targets
            text = last.answer.prompt + last.answer.target
            covered = [(target, reach) for target in earlier if (reach := self._reach(target, last, text))]
            if not earlier or (covered and covered[0][0] is first):
                break
            targets = earlier
        if left_out := count - len(covered) - 1:
            rendering.leave_out(SKIPPED, count=left_out)
        return self._example(text, last, covered, rendering)

    def prompt(self, conversation: Conversation) -> str:
        """What generation starts from, where all messages of ``conversation`` stand in front of an answer: what is in front of a short
        one that is learnt, or else the template's own generation prompt, with the options that training asked with where these are known.
        """
        conversation = fitted(conversation, self.probe, self.options, lambda notice: None)
        number = len(conversation.messages)
        chosen = self._options(conversation, [])
        sets = option_sets(self._thinking_variable, chosen, self.options.thinking, has_thought=False)
        sets = self._asked(conversation, sets) or sets
        answered = replace(conversation, messages=[*conversation.messages, {"role": "assistant", "content": "x"}])
        try:
            answer = self.finder.find(answered, number, sets)
            spans, _ = self.parts.of(answered, answer, self.tokens.end_of(answer.target))
            return answer.prompt + answer.target[: spans[0][0]]
        except BadRecord:
            return self.finder.prompt(conversation, number, sets[0]) + self.finder.header

    def _asked(self, conversation: Conversation, sets: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The options that training asked with, unless the conversation or the settings name others."""
        asked = self.options.asked
        if asked is None or conversation.options or not sets[0].items() <= asked.items():
            return ()
        return (asked,)

    def _options(self, conversation: Conversation, notices: list[Notice]) -> Mapping[str, Any]:
        if not conversation.options:
            return self.options.template_options
        unknown = conversation.options.keys() - self.template.variables
        notices += [Notice(UNKNOWN_OPTION, name) for name in sorted(unknown)]
        options = {name: value for name, value in conversation.options.items() if name not in unknown}
        return {**self.options.template_options, **options}

    def _everything(self, conversation: Conversation, chosen: Mapping[str, Any]) -> RenderedExample:
        sets = option_sets(self._thinking_variable, chosen, self.options.thinking, has_thought=True)
        text = self.template.render_first(conversation, len(conversation.messages), sets[0])
        own, end = self.tokens.end_of(text)
        return RenderedExample([Stretch(text, learnt=True)], add_eos=own == end, answers=sum(conversation.learnt))

    # Answers -------------------------------------------------------------------------------------------------------------

    def _targets(self, conversation: Conversation, chosen: Mapping[str, Any], rendering: Rendering) -> list[_Target]:
        """The answers that are learnt, the last one first. Raises ``BadRecord`` where there is none."""
        numbers = [number for number, learn in enumerate(conversation.learnt) if learn]
        targets: list[_Target] = []
        refusals: list[BadRecord] = []
        for number in reversed(numbers):
            try:
                targets.append(self._target(conversation, number, chosen, rendering))
            except BadRecord as error:
                refusals.append(error)
        if not targets:
            raise _with_hint(refusals[0], conversation.messages) if refusals else BadRecord("no answer to learn")
        for refusal in refusals:
            rendering.leave_out(LEFT_OUT, str(refusal))
        return targets

    def _target(self, conversation: Conversation, number: int, chosen: Mapping[str, Any], rendering: Rendering) -> _Target:
        thought = thought_of(conversation.messages[number])
        sets = option_sets(self._thinking_variable, chosen, self.options.thinking, has_thought=bool(thought))
        answer = self.finder.find(conversation, number, (*self._asked(conversation, sets), *sets))
        return self._target_of(conversation, answer, sets[0], rendering)

    def _target_of(
        self, conversation: Conversation, answer: PromptedAnswer, usual: Mapping[str, Any], rendering: Rendering
    ) -> _Target:
        """The learnt spans of an answer; ``usual`` are the options that the template is tried with first. Raises ``BadRecord``."""
        thought = thought_of(conversation.messages[answer.number])
        target = answer.target
        if thought and thought.strip() not in target:
            raise BadRecord("the chat template leaves out the thought of an answer; --reasoning drop learns it without")
        own_end, end = self.tokens.end_of(target)
        if not target[:own_end].strip():
            raise BadRecord("the chat template writes nothing of an answer")
        if self.probe.tagged_elsewhere:
            raise BadRecord(
                f"the chat template tags {self.probe.tagged_elsewhere} as generated",
                hint="Correct its {% generation %} tags, or give another template with --chat-template.",
            )
        spans, reason = self.parts.of(conversation, answer, (own_end, end))
        rendering.notices += [Notice(case) for case in (answer.case, reason) if case]
        if answer.options != usual:
            changed = {name: value for name, value in answer.options.items() if name not in usual or usual[name] != value}
            subject = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in changed.items())
            rendering.notices.append(Notice(THINKING, subject))
        return _Target(answer, spans, own_end)

    # Examples ------------------------------------------------------------------------------------------------------------

    def _add_examples(self, targets: Sequence[_Target], rendering: Rendering) -> None:
        """From the last answer to the first, an example of each that no later one covers; in the order of the conversation."""
        waiting = list(targets)
        while waiting:
            last, *waiting = waiting
            if rendering.examples and self.options.rewritten_turns == "skip":
                rendering.leave_out(SKIPPED, count=len(waiting) + 1)
                break
            text = last.answer.prompt + last.answer.target
            covered = [(target, reach) for target in waiting if (reach := self._reach(target, last, text))]
            members = {target.answer.number for target, _ in covered}
            waiting = [target for target in waiting if target.answer.number not in members]
            rendering.examples.insert(0, self._example(text, last, covered[::-1], rendering))
        if len(rendering.examples) > 1:
            rendering.notices.append(Notice(UNROLLED, remedy="--learn last takes the last answer only."))

    def _reach(self, target: _Target, last: _Target, text: str) -> int:
        """How far into ``text``, the example of ``last``, it is what ``target`` has; 0 where that misses the end of its own text."""
        answer = target.answer
        if answer.options != last.answer.options or not text.startswith(answer.prompt):
            return 0
        start = len(answer.prompt)
        if text.startswith(answer.target, start) and answer.target.endswith(tuple(self.tokens.special)):
            return start + len(answer.target)
        reach = self.tokens.common(answer.target, text[start : start + len(answer.target) + 64])
        return start + reach if reach >= target.own_end else 0

    def _example(self, text: str, last: _Target, covered: Sequence[tuple[_Target, int]], rendering: Rendering) -> RenderedExample:
        spans: list[Span] = []
        without_end = 0
        for target, reach in covered:
            reached, has_end = self._covered_spans(text, target, reach)
            spans += reached
            without_end += not has_end
        if without_end:
            rendering.notices.append(Notice(WITHOUT_END, count=without_end))
        start = len(last.answer.prompt)
        spans += [(start + begin, start + end) for begin, end in last.spans]
        own, end = self.tokens.end_of(text)
        add_eos = own == end and not text[spans[-1][1] :].strip()
        return RenderedExample(_stretches(text, spans), add_eos, len(covered) + 1, last.answer.options)

    def _covered_spans(self, text: str, target: _Target, reach: int) -> tuple[list[Span], bool]:
        """The spans of an earlier answer in ``text``, which has it up to ``reach``, and whether its end is among them."""
        start = len(target.answer.prompt)
        stop = start + self.tokens.end_of(target.answer.target[: reach - start])[1]
        spans = [(start + begin, min(start + end, stop)) for begin, end in target.spans if start + begin < stop]
        begin, stop = spans[-1]
        own, end = self.tokens.end_of(text[begin:stop])
        follower = self.tokens.begins(text, stop) if own == end else ""
        if follower and follower in self.stops:
            spans[-1] = (begin, stop + len(follower))
        return spans, own < end or follower in self.stops


def _hold(answers: Sequence[PromptedAnswer], texts: Sequence[str]) -> bool:
    """Whether all ``texts`` are in what is rendered for one of ``answers``: in the first, in this order, as a rule."""
    renderings = [answers[0].prompt + answers[0].target]
    position = 0
    for text in texts:
        start = renderings[0].find(text, position)
        if start >= 0:
            position = start + len(text)
            continue
        if len(renderings) == 1:
            renderings += [answer.prompt + answer.target for answer in answers[1:]]
        if not any(text in rendering for rendering in renderings):
            return False
    return True


def _stretches(text: str, spans: Sequence[Span]) -> list[Stretch]:
    """``text`` up to the end of the last span, parted at each; there is nothing in front of a span that begins the text."""
    stretches: list[Stretch] = []
    position = 0
    for start, stop in spans:
        if start > position:
            stretches.append(Stretch(text[position:start], learnt=False))
        stretches.append(Stretch(text[start:stop], learnt=True))
        position = stop
    return stretches


def _with_hint(error: BadRecord, messages: Sequence[Message]) -> BadRecord:
    """The error with the setting that helps where a role follows itself."""
    roles = [message["role"] for message in messages]
    if "alternate" in str(error) and any(role == follower != "tool" for role, follower in pairwise(roles)):
        return BadRecord(f"{error}; --merge-turns makes one message of neighbours of one role")
    return error
