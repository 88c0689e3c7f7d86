"""What reading data gives, and what it stumbles over: records with their places, malformed rows, formats by ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pitstop.configs.errors import DataError
from pitstop.configs.notices import Notice, Notices


class NoData(DataError):
    """There is no data at the place that was given."""


class BadRecord(ValueError):
    """A record that the task cannot use; the message is the reason, ``hint`` what to do next. ``answers`` of it would have been learnt."""

    def __init__(self, reason: str, answers: int = 0, *, hint: str = "") -> None:
        super().__init__(reason)
        self.answers, self.hint = answers, hint


class UnknownFormat(DataError):
    """No format is known for a file's ending."""


@dataclass(frozen=True)
class Record:
    """One row: its fields, and where it stands (``file.jsonl line 7``).

    ``fills_nulls``: it is from a table of structs, in which a key that other rows have is null where a row lacks it.
    """

    fields: dict[str, Any]
    place: str
    fills_nulls: bool = False


_MOST_REASONS = 100


@dataclass
class BadRows:
    """What to do with malformed rows: stop at the first, or count them and keep their reasons; ``reasons`` are the first few.

    ``notices`` takes these and what else is decided while data is read: a file that is not read, a field that is not used. ``answers``
    are those of malformed rows as far as they are known, ``answers_left_out`` those of all others that are not learnt. ``unit`` is what
    a row is called.
    """

    skip: bool
    count: int = 0
    reasons: tuple[str, ...] = ()
    answers: int = 0
    answers_left_out: int = 0
    notices: Notices = field(default_factory=Notices, compare=False)
    unit: str = "row"
    _kinds: set[str] = field(default_factory=set, compare=False)

    def report(self, place: str, reason: str, hint: str = "") -> None:
        """Note a bad row. Raises ``DataError`` with ``hint`` unless bad rows are to be skipped."""
        if not self.skip:
            raise DataError(
                f"{place}: {reason}",
                hint=hint or "Correct the row, or pass --skip-bad-rows to leave such rows out and count them.",
            )
        self.count += 1
        if len(self.reasons) < 3:
            self.reasons += (f"{place}: {reason}",)
        if len(self._kinds) < _MOST_REASONS:
            self._kinds.add(reason)
        subject = reason if reason in self._kinds else "for other reasons"
        text = f"{{count}} malformed [{self.unit} was|{self.unit}s were] left out: {{subject}}"
        self.notices.add(Notice(text, subject, place=place, remedy=hint, loss=True))

    def leave_out_answers(self, reason: Notice) -> None:
        """Note answers that are not learnt, as many as ``reason`` counts."""
        self.answers_left_out += reason.count
        self.notices.add(reason)


@dataclass(frozen=True)
class RecordFormat:
    """How files of an ending are read; ``recognises`` says which of them a directory's reader is to take."""

    read: Callable[[Path, str, BadRows], Iterator[Record]]
    recognises: Callable[[Path], bool] = lambda path: True
    packed: bool = False
    """Whether ``read`` unpacks a compressed file (``.jsonl.gz``)."""
    alone: bool = False
    """Whether a directory's files of this form are read only where it has no other."""


Formats = Mapping[str, RecordFormat]
NO_MORE: Formats = MappingProxyType({})
