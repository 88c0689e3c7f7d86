"""The preview of a data set: all of it is read once, as training reads it, and a few records are kept to be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pitstop.configs.notices import Notices
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.preview.figures import ExampleFigures
from pitstop.trainers.data.preview.oddities import Oddities, PreviewedRecord
from pitstop.trainers.data.reading import ReadOptions, RecordEncoder, RecordResult, read_outcomes

_LAST_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Wish:
    """Which records are to be shown: the first ``count`` of a data set, those with the ``number`` in their place, or odd ones."""

    count: int = 3
    number: int | None = None
    odd: bool = False


@dataclass(frozen=True)
class DataPreview:
    """What is to be shown of one data set. ``shapes`` counts the records of each kind."""

    spec: str
    counts: Counts
    figures: ExampleFigures
    shapes: dict[str, int]
    records: tuple[PreviewedRecord, ...]


def gather(spec: str, task: RecordEncoder, options: ReadOptions, wish: Wish) -> DataPreview:
    """Read all of ``spec``, and gather malformed records instead of stopping. Raises ``DataError`` for data that cannot be read."""
    gatherer = _Gatherer(task, wish)
    left_out = read_outcomes(spec, task, replace(options, skip_bad_rows=True), gatherer.hear, gatherer.notices)
    figures = gatherer.figures
    return DataPreview(spec, figures.counts(left_out), figures, gatherer.shapes, tuple(gatherer.records()))


class _Gatherer:
    """Hears of every record; ``notices`` has what was decided up to then."""

    def __init__(self, task: RecordEncoder, wish: Wish) -> None:
        self.notices, self.figures = Notices(), ExampleFigures()
        self.shapes: dict[str, int] = {}
        self._task, self._wish = task, wish
        self._chosen: list[PreviewedRecord] = []
        self._oddities = Oddities(self.notices)

    def hear(self, outcome: RecordResult) -> None:
        """Count a record, and keep it if it is to be shown."""
        self.figures.add(outcome.examples, outcome.too_long)
        shape = "" if outcome.record is None or outcome.malformed else self._task.shape(outcome.record)
        if shape:
            self.shapes[shape] = self.shapes.get(shape, 0) + 1
        record = PreviewedRecord(outcome, shape)
        if self._wish.number is not None:
            match = _LAST_NUMBER.search(outcome.place)
            if match and int(match[1]) == self._wish.number:
                self._chosen.append(record)
        elif self._wish.odd:
            self._oddities.hear(record)
        elif len(self._chosen) < self._wish.count:
            self._chosen.append(record)

    def records(self) -> list[PreviewedRecord]:
        """Those to show."""
        return self._oddities.records() if self._wish.odd else self._chosen
