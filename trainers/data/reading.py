"""From ``--dataset`` to a ``Dataset``: records read as a stream, tokenised in batches, and kept where they are many."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pitstop.configs.datasets import DataSource, source_names
from pitstop.configs.errors import DataError
from pitstop.configs.notices import Notices, shortened
from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.cache.key import is_large
from pitstop.trainers.data.counts import Counts, LeftOut
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.duplicates import told, without_repeated
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import Examples, InMemory
from pitstop.trainers.data.lengths import OverlongExamples
from pitstop.trainers.data.mixture import mixed
from pitstop.trainers.data.records import BadRecord, BadRows, Record

_BATCH = 512
"""Records tokenised at a time."""

FORMAT = "10"
"""Part of every key of the cache: to be raised with any change of how a record becomes tokens."""


@dataclass(frozen=True)
class ReadOptions:
    """The longest example in tokens, whether examples share sequences, whether bad rows are skipped, which split, the Hub's token.

    ``max_records`` are read of each data set, from the first on; None reads all. ``refuse_too_long``: a record that is too long stops.
    ``drop_duplicates``: of equal examples of a data set the first is used.
    """

    max_length: int
    packing: bool
    skip_bad_rows: bool = False
    split: str = "train"
    token: str | None = None
    max_records: int | None = None
    refuse_too_long: bool = False
    drop_duplicates: bool = False


@dataclass(frozen=True)
class RecordResult:
    """What became of a record: the examples that are used, those longer than ``max_length``, or the reason why it is malformed.

    ``record`` is None for a row that could not be read.
    """

    place: str
    record: Record | None
    examples: Sequence[Example] = ()
    too_long: Sequence[Example] = ()
    malformed: str = ""


class RecordEncoder(Protocol):
    """What reading asks of a task: the records of a place, and the examples of records."""

    @property
    def name(self) -> str:
        """Part of the cache's key, as what ``relevant_settings`` gives."""

    def records(self, spec: str, bad_rows: BadRows, *, split: str, token: str | None) -> Iterator[Record]:
        """Yield the records of one ``--dataset`` value; raises ``DataError`` for what cannot be read."""

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        """The examples of each record, or the reason why it has none; what else is decided about records goes to ``bad_rows``."""

    def with_settings(self, settings: Mapping[str, Any]) -> RecordEncoder:
        """The same with other settings of the group ``data``, by name."""

    def conclude(self, bad_rows: BadRows) -> None:
        """Add to ``bad_rows`` what is known behind the last record of a data set."""

    def shape(self, record: Record) -> str:
        """What kind of record it is, in a word or two for people; empty where all are of one kind."""

    def content(self, spec: str, *, split: str, token: str | None, digest: Callable[[Path], str]) -> str | None:
        """What changes with the data that ``records`` reads; ``digest`` gives the SHA-256 of a file. None where nothing tells."""

    @property
    def too_long_remedy(self) -> str:
        """What the user can do about records that are left out, since they are too long."""

    def relevant_settings(self) -> Mapping[str, Any]:
        """The settings that examples depend on besides ``max_length``, as JSON-able values."""


def load_dataset(
    specs: Sequence[str | DataSource], task: RecordEncoder, options: ReadOptions, *, cache: DataCache | None = None
) -> Dataset:
    """Read, tokenise and pack the data of ``specs``; several are a mixture.

    Records longer than ``max_length`` tokens are left out and counted. Large data is held in a table, which ``cache`` keeps on
    disk; without one it is in memory. Raises ``DataError`` for unreadable or bad records (unless these are skipped) and where
    nothing usable is left of a data set, and what the cache raises.
    """
    sources = [spec if isinstance(spec, DataSource) else DataSource(spec) for spec in specs]
    large = is_large([source.spec for source in sources])
    parts = []
    for source in sources:
        encoder = task.with_settings(source.settings) if source.settings else task
        max_records = source.settings.get("max_records", options.max_records)
        examples, counts = _examples(source.spec, encoder, replace(options, max_records=max_records), large, cache)
        if options.drop_duplicates:
            examples, counts = without_repeated(examples, counts)
        else:
            counts = replace(counts, notices=(*counts.notices, *told(examples)))
        parts.append(Dataset(examples, max_length=options.max_length, packing=options.packing, counts=counts))
    weights = [source.weight for source in sources if source.weight is not None]
    return mixed(parts, source_names([source.spec for source in sources]), weights or None)


def _examples(
    spec: str, task: RecordEncoder, options: ReadOptions, large: bool, cache: DataCache | None
) -> tuple[Examples, Counts]:
    if not large:
        gathered: list[Example] = []
        left_out = _read(spec, task, options, gathered.append)
        examples: Examples = InMemory(gathered)
        return examples, _counted(spec, task, examples, left_out, options)
    if cache is not None and (key := _key(spec, task, options, cache)) is not None:
        return cache.get(key, spec, partial(_fill, spec, task, options, cache, key["content"]))
    from pitstop.trainers.data.cache.table import TableExamples, TableWriter

    table = TableWriter()
    left_out = _read(spec, task, options, table.add)
    table.close()
    examples = TableExamples(table.batches)
    return examples, _counted(spec, task, examples, left_out, options)


def _fill(
    spec: str, task: RecordEncoder, options: ReadOptions, cache: DataCache, content: str, add: Callable[[Example], None]
) -> Callable[[Examples], Counts]:
    """Read what has ``content``. Raises ``DataError`` where it no longer has: its examples would be kept as those of another content."""
    left_out = _read(spec, task, options, add)
    if task.content(spec, split=options.split, token=options.token, digest=cache.digest) != content:
        raise DataError(f"{spec} changed while it was read.", hint="Start again once nothing writes to it.")
    return lambda examples: _counted(spec, task, examples, left_out, options)


def _key(spec: str, task: RecordEncoder, options: ReadOptions, cache: DataCache) -> dict[str, Any] | None:
    """All that the examples follow from; None where that cannot be told."""
    content = task.content(spec, split=options.split, token=options.token, digest=cache.digest)
    if content is None:
        return None
    return {
        "format": FORMAT,
        "content": content,
        "split": options.split,
        "task": task.name,
        "settings": task.relevant_settings(),
        "max_length": options.max_length,
        "skip_bad_rows": options.skip_bad_rows,
        "max_records": options.max_records,
        **cache.tokenizer_key,
    }


class _Refused(Exception):
    """The disk did not take an example: not to be mistaken for one that the reader cannot read, which calls ``report``."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def _read(spec: str, task: RecordEncoder, options: ReadOptions, add: Callable[[Example], None]) -> LeftOut:
    """Give each example that fits to ``add``; returns what else there was. ``OSError`` from ``add``."""

    def hear(outcome: RecordResult) -> None:
        try:
            for example in outcome.examples:
                add(example)
        except OSError as error:
            raise _Refused(error) from error

    try:
        return read_outcomes(spec, task, options, hear, Notices())
    except _Refused as refused:
        raise refused.error from None


def read_outcomes(
    spec: str, task: RecordEncoder, options: ReadOptions, hear: Callable[[RecordResult], None], notices: Notices
) -> LeftOut:
    """Read and tokenise the records of ``spec``; ``hear`` is told what became of each, in order. Returns what gave no example.

    ``notices`` takes what else is decided, before ``hear`` is told of the record that it is about. Raises ``DataError``.
    """
    reading = _Reading(task, options, hear, notices)
    try:
        with contextlib.suppress(_Enough):
            for record in task.records(spec, reading, split=options.split, token=options.token):
                reading.take(record)
    except DataError:
        reading.tokenise()  # a record before the place that cannot be read may be the first that is wrong
        raise
    reading.tokenise()
    task.conclude(reading)
    return reading.left_out()


class _Enough(Exception):
    """As many rows are read as are asked for."""


class _Reading(BadRows):
    """Records that wait to be tokenised, and what became of the others. A bad row of the reader is told behind those that the task finds
    in the records before it.
    """

    def __init__(self, task: RecordEncoder, options: ReadOptions, hear: Callable[[RecordResult], None], notices: Notices) -> None:
        super().__init__(options.skip_bad_rows, notices=notices)
        self._task, self._longest, self._hear = task, options.max_length, hear
        self._overlong = OverlongExamples(options.max_length, refuse=options.refuse_too_long)
        self._examples = self._records_left_out = 0
        self._options: Counter[str] = Counter()
        self._waiting: list[Record] = []
        self._rows, self._most = 0, options.max_records

    def take(self, record: Record) -> None:
        """Let a record wait, with others, to be tokenised. Raises ``_Enough`` where it is the last."""
        self._waiting.append(record)
        if len(self._waiting) >= _BATCH:
            self.tokenise()
        self._count_row()

    def report(self, place: str, reason: str, hint: str = "") -> None:
        """Note a bad row. Raises ``DataError`` unless bad rows are to be skipped, and ``_Enough`` where it is the last."""
        self.tokenise()
        super().report(place, reason, hint)
        self._hear(RecordResult(place, None, malformed=reason))
        self._count_row()

    def _count_row(self) -> None:
        self._rows += 1
        if self._rows == self._most:
            raise _Enough

    def tokenise(self) -> None:
        """Make examples of the records that wait."""
        records = self._waiting[:]
        self._waiting.clear()
        for record, examples in zip(records, self._examples_of(records), strict=True):
            if isinstance(examples, BadRecord):
                super().report(record.place, str(examples), examples.hint)
                self.answers += examples.answers
                self._hear(RecordResult(record.place, record, malformed=str(examples)))
            else:
                self._sort(record, examples)

    def _examples_of(self, records: Sequence[Record]) -> list[list[Example] | BadRecord]:
        collecting = gc.isenabled()
        gc.disable()  # thousands of lists of tokens: looking for cycles among them costs an eighth of the time
        try:
            return self._task.examples_of(records, self)
        finally:
            if collecting:
                gc.enable()

    def _sort(self, record: Record, examples: Sequence[Example]) -> None:
        """Tell which examples of a record fit."""
        fitting = [example for example in examples if len(example) <= self._longest]
        longer = [example for example in examples if len(example) > self._longest]
        for example in longer:
            self._overlong.add(record.place, len(example))
        self._examples += len(examples)
        self._records_left_out += not fitting
        self.answers_left_out += sum(example.answers for example in longer)
        fitting[1:] = [replace(example, opens=False) for example in fitting[1:]]
        for example in fitting:
            if example.options:
                self._options[example.options] += example.answers
        self._hear(RecordResult(record.place, record, fitting, longer))

    def left_out(self) -> LeftOut:
        """What was read and gave no example, all of it told."""
        if self._overlong.lengths:
            self.notices.add(self._overlong.notice(self._examples + self.count, self._task.too_long_remedy))
        return LeftOut(
            len(self._overlong.lengths),
            self._records_left_out,
            self.count,
            self.reasons,
            self.answers_left_out,
            self.answers,
            tuple(self.notices),
            tuple(sorted(self._options.items())),
        )


def _counted(spec: str, task: RecordEncoder, examples: Examples, left_out: LeftOut, options: ReadOptions) -> Counts:
    counts = Counts.of(examples, left_out)
    if not len(examples):
        raise _nothing_left(spec, counts, options.max_length, task.too_long_remedy)
    return counts


def _nothing_left(spec: str, counts: Counts, max_length: int, too_long_remedy: str) -> DataError:
    if counts.too_long:
        return DataError(
            f"{spec}: all {counts.too_long:,} usable records are longer than MAX_LENGTH = {max_length} tokens.",
            hint=too_long_remedy,
        )
    if counts.bad:
        return DataError(f"{spec}: every row is malformed; the first: {counts.bad_reasons[0]}.")
    if counts.read.left_out:
        reasons = " ".join(str(notice) for notice in shortened(counts.notices))
        return DataError(f"{spec}: none of its {counts.read.read:,} records gives an example.", hint=reasons)
    return DataError(f"{spec}: the data set is empty.", hint="Give a file with at least one record.")
