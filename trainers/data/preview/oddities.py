"""Odd records: the first for each thing that was decided about records, and those at the ends of what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pitstop.configs.notices import Notices
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.reading import RecordResult

_LARGEST_SHARE, _SMALLEST_SHARE = 0.95, 0.01


@dataclass(frozen=True)
class PreviewedRecord:
    """A record to show, its kind, and why it is odd; no reasons for one that was asked for."""

    outcome: RecordResult
    shape: str
    reasons: tuple[str, ...] = ()


@dataclass
class _Extreme:
    """The example of which ``measure`` is the largest; None of it leaves an example out. ``reason`` says it with tokens and learnt tokens."""

    measure: Callable[[int, int, Example], float | None]
    reason: str
    largest: float | None = None
    record: PreviewedRecord | None = None
    text: str = ""

    def hear(self, record: PreviewedRecord, example: Example) -> None:
        tokens, learnt = example.input_ids.size, int(example.supervised.sum())
        value = self.measure(tokens, learnt, example)
        if value is not None and (self.largest is None or value > self.largest):
            self.largest, self.record = value, record
            self.text = self.reason.format(tokens=tokens, learnt=learnt, share=100 * learnt / tokens)


def _extremes() -> list[_Extreme]:
    return [
        _Extreme(lambda tokens, learnt, example: tokens, "the longest, {tokens:,} tokens"),
        _Extreme(lambda tokens, learnt, example: -learnt, "the fewest learnt tokens, {learnt:,}"),
        # all of a document is learnt
        _Extreme(
            lambda tokens, learnt, example: learnt / tokens if example.answers and learnt > _LARGEST_SHARE * tokens else None,
            "{share:.1f} % of its tokens are learnt, the most",
        ),
        _Extreme(
            lambda tokens, learnt, example: -learnt / tokens if learnt < _SMALLEST_SHARE * tokens else None,
            "{share:.1f} % of its tokens are learnt, the least",
        ),
    ]


class Oddities:
    """Hears of every record of a data set and keeps the odd ones; ``notices`` is what was decided so far, with first places."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._seen = 0  # of the notices
        self._places: dict[str, list[str]] = {}
        self._extremes = _extremes()
        self._chosen: list[tuple[PreviewedRecord, str]] = []

    def hear(self, record: PreviewedRecord) -> None:
        """Keep a record if it is odd so far."""
        self._look_at_notices()
        outcome = record.outcome
        for reason in self._places.pop(outcome.place, ()):
            self._chosen.append((record, reason))
        for example in (*outcome.examples, *outcome.too_long):
            for extreme in self._extremes:
                extreme.hear(record, example)

    def _look_at_notices(self) -> None:
        if len(self._notices) > self._seen:
            for notice in list(self._notices)[self._seen :]:
                if notice.place:
                    alone = replace(notice, count=1, place="", remedy="")
                    self._places.setdefault(notice.place, []).append(str(alone).removesuffix("."))
            self._seen = len(self._notices)

    def records(self) -> list[PreviewedRecord]:
        """The odd records, each with why it is."""
        odd: dict[str, PreviewedRecord] = {}
        extremes = [(extreme.record, extreme.text) for extreme in self._extremes if extreme.record is not None]
        for record, reason in (*self._chosen, *extremes):
            earlier = odd.setdefault(record.outcome.place, record)
            odd[record.outcome.place] = replace(earlier, reasons=(*earlier.reasons, reason))
        return list(odd.values())
