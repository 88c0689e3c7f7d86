"""From ``--dataset`` to a ``Dataset``: records read as a stream, tokenised in batches, and kept where they are many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pitstop.configs.datasets import DataSource, source_names
from pitstop.configs.errors import DataError
from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.cache.content import is_large
from pitstop.trainers.data.dataset import Counts, Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import Examples, InMemory
from pitstop.trainers.data.how import Reading
from pitstop.trainers.data.mixture import mixed
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.tasks.base import BadRecord

if TYPE_CHECKING:
    from pitstop.trainers.tasks.text import TextTask

_BATCH = 512
"""Records tokenised at a time."""

FORMAT = "1"
"""Part of every key of the cache: to be raised with any change of how a record becomes tokens."""


def load_dataset(
    specs: Sequence[str | DataSource],
    task: TextTask,
    *,
    max_length: int,
    packing: bool,
    skip_bad_rows: bool = False,
    split: str = "train",
    token: str | None = None,
    cache: DataCache | None = None,
) -> Dataset:
    """Read, tokenise and pack the data of ``specs``; several are a mixture.

    Records longer than ``max_length`` tokens are left out and counted. Large data is held in a table, which ``cache`` keeps on
    disk; without one it is in memory. Raises ``DataError`` for unreadable or bad records (unless these are skipped) and where
    nothing usable is left of a data set, and what the cache raises.
    """
    sources = [spec if isinstance(spec, DataSource) else DataSource(spec) for spec in specs]
    how = Reading(max_length, packing, skip_bad_rows, split, token)
    large = is_large([source.spec for source in sources])
    parts = [_part(source.spec, task, how, large, cache) for source in sources]
    weights = [source.weight for source in sources if source.weight is not None]
    return mixed(parts, source_names([source.spec for source in sources]), weights or None)


def _part(spec: str, task: TextTask, how: Reading, large: bool, cache: DataCache | None) -> Dataset:
    examples, counts = _examples(spec, task, how, large, cache)
    return Dataset(examples, max_length=how.max_length, packing=how.packing, counts=counts)


def _examples(spec: str, task: TextTask, how: Reading, large: bool, cache: DataCache | None) -> tuple[Examples, Counts]:
    if not large:
        gathered: list[Example] = []
        bad_rows, too_long = _read(spec, task, how, gathered.append)
        examples: Examples = InMemory(gathered)
        return examples, _counted(spec, examples, too_long, bad_rows, how)
    if cache is not None and (key := _key(spec, task, how, cache)) is not None:
        return cache.get(key, spec, partial(_fill, spec, task, how))
    from pitstop.trainers.data.cache.table import TableExamples, TableWriter

    table = TableWriter()
    bad_rows, too_long = _read(spec, task, how, table.add)
    table.close()
    examples = TableExamples(table.batches)
    return examples, _counted(spec, examples, too_long, bad_rows, how)


def _fill(spec: str, task: TextTask, how: Reading, add: Callable[[Example], None]) -> Callable[[Examples], Counts]:
    bad_rows, too_long = _read(spec, task, how, add)
    return lambda examples: _counted(spec, examples, too_long, bad_rows, how)


def _key(spec: str, task: TextTask, how: Reading, cache: DataCache) -> dict[str, Any] | None:
    """All that the examples follow from; None where that cannot be told."""
    content = task.content(spec, split=how.split, token=how.token, digest=cache.digest)
    if content is None:
        return None
    return {
        "format": FORMAT,
        "content": content,
        "split": how.split,
        "task": task.name,
        "settings": task.relevant_settings(),
        "max_length": how.max_length,
        "skip_bad_rows": how.skip_bad_rows,
        **cache.surroundings,
    }


class _InOrder(BadRows):
    """Bad rows of the reader, told after those that the task found in the records before."""

    def __init__(self, skip: bool, first: Callable[[], None]) -> None:
        super().__init__(skip)
        self._first = first

    def report(self, where: str, reason: str) -> None:
        """Note a bad row. Raises ``DataError`` unless bad rows are to be skipped."""
        self._first()
        super().report(where, reason)


class _Refused(Exception):
    """The disk did not take an example: not to be mistaken for one that the reader cannot read, which calls ``report``."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def _read(spec: str, task: TextTask, how: Reading, add: Callable[[Example], None]) -> tuple[BadRows, int]:
    """Give each example that fits to ``add``; returns the bad rows and how many examples were too long. ``OSError`` from ``add``."""
    try:
        return _stream(spec, task, how, add)
    except _Refused as refused:
        raise refused.error from None


def _stream(spec: str, task: TextTask, how: Reading, add: Callable[[Example], None]) -> tuple[BadRows, int]:
    waiting: list[Record] = []
    too_long = 0

    def tokenise() -> None:
        nonlocal too_long
        records = waiting[:]
        waiting.clear()
        for record, found in zip(records, task.examples_of(records), strict=True):
            if isinstance(found, BadRecord):
                BadRows.report(bad_rows, record.where, str(found))
                continue
            fitting = [example for example in found if len(example) <= how.max_length]
            too_long += len(found) - len(fitting)
            try:
                for example in fitting:
                    add(example)
            except OSError as error:
                raise _Refused(error) from error

    bad_rows = _InOrder(how.skip_bad_rows, tokenise)
    try:
        for record in task.records(spec, bad_rows, split=how.split, token=how.token):
            waiting.append(record)
            if len(waiting) >= _BATCH:
                tokenise()
    except DataError:
        tokenise()  # a record before the place that cannot be read may be the first that is wrong
        raise
    tokenise()
    return bad_rows, too_long


def _counted(spec: str, examples: Examples, too_long: int, bad_rows: BadRows, how: Reading) -> Counts:
    counts = Counts.of(examples, too_long=too_long, bad=bad_rows.count, bad_reasons=bad_rows.reasons)
    if not len(examples):
        raise _nothing_left(spec, counts, how.max_length)
    return counts


def _nothing_left(spec: str, counts: Counts, max_length: int) -> DataError:
    if counts.too_long:
        return DataError(
            f"{spec}: all {counts.too_long:,} usable records are longer than MAX_LENGTH = {max_length} tokens.",
            hint="Raise --max-length, or split the records.",
        )
    if counts.bad:
        return DataError(f"{spec}: every row is malformed; the first: {counts.bad_reasons[0]}.")
    return DataError(f"{spec}: the data set is empty.", hint="Give a file with at least one record.")
