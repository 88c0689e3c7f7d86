"""Which part of an answer is learnt: up to and with its end token, or what the template tags as generated."""

from __future__ import annotations

import re

from pitstop.trainers.data.chat.added_tokens import AddedTokens
from pitstop.trainers.data.chat.conversation import Conversation
from pitstop.trainers.data.chat.cue import PromptedAnswer
from pitstop.trainers.data.chat.template import CLOSING, OPENING, ChatTemplate
from pitstop.trainers.data.records import BadRecord

Span = tuple[int, int]
"""From a character up to another one."""

_MARK = re.compile(f"([{OPENING}{CLOSING}])")

UNTAGGED_START = "{count} [answer begins|answers begin] with text that the chat template tags as not generated; it is not learnt"
TAGS_IGNORED = "the generation tags of the chat template change what it writes, so they are ignored"


class LearntParts:
    """Finds what of targets is learnt."""

    def __init__(self, template: ChatTemplate, tokens: AddedTokens) -> None:
        self.template, self.tokens = template, tokens

    def of(self, conversation: Conversation, answer: PromptedAnswer, ends: tuple[int, int]) -> tuple[list[Span], str]:
        """Spans of the answer's target in order, and the reason of a notice or nothing. ``BadRecord`` where tags leave none.

        ``ends``: where the own text of the target stops, and its end token.
        """
        target = answer.target
        if not self.template.has_tags:
            return [(0, ends[1])], ""
        marked = self.template.render_marked(conversation, answer.number + 1, answer.options)
        text, spans = unmarked(marked)
        if not text.endswith(target[answer.added :]) or not answer.prompt.startswith(text[: _shared(text, answer)]):
            return [(0, ends[1])], TAGS_IGNORED
        return self._tagged(answer, [(start - len(text), stop - len(text)) for start, stop in spans], ends)

    def _tagged(self, answer: PromptedAnswer, from_end: list[Span], ends: tuple[int, int]) -> tuple[list[Span], str]:
        """The spans of the target; ``from_end`` counts characters from its end, as negative numbers."""
        length = len(answer.target)
        clipped = [(max(length + start, answer.added), length + stop) for start, stop in from_end]
        spans = [(start, self._with_end(answer.target, stop, ends)) for start, stop in clipped if start < stop]
        if not spans:
            raise BadRecord("the chat template tags nothing of an answer as generated")
        first = spans[0][0]
        if answer.added:
            spans.insert(0, (0, answer.added))
        skipped = answer.target[answer.added : first]
        return _joined(spans), UNTAGGED_START if skipped.strip() else ""

    def _with_end(self, target: str, stop: int, ends: tuple[int, int]) -> int:
        """``stop``, or where the end token stops that follows directly; white space behind that is not learnt, tagged or not."""
        own, end = ends
        follows = stop >= own and (stop >= end or self.tokens.begins(target, stop))
        return end if follows else stop


def _shared(text: str, answer: PromptedAnswer) -> int:
    """How much of the rendering stands in front of the target's own text, a cue that it lacks aside."""
    return 0 if answer.case else len(text) - len(answer.target)


def unmarked(marked: str) -> tuple[str, list[Span]]:
    """The text of a rendering with marks without them, and the spans between them."""
    pieces: list[str] = []
    spans: list[Span] = []
    position, start = 0, None
    for piece in _MARK.split(marked):
        if piece == OPENING:
            start = position
        elif piece != CLOSING:
            pieces.append(piece)
            position += len(piece)
        elif start is not None:
            spans.append((start, position))
            start = None
    return "".join(pieces), spans


def _joined(spans: list[Span]) -> list[Span]:
    """Spans that touch as one."""
    joined: list[Span] = []
    for start, stop in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
