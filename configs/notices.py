"""What is decided on the user's behalf: counted by reason, told once, and on record in metadata.json.

A field that is not used, a file that is not read, a weight that the architecture has no place for, a variable that is ignored: whoever
passes over such a thing adds it to ``Notices`` in place of a line of its own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

LONGEST_LIST = 10
"""Subjects of one reason that are told."""

_BY_NUMBER = re.compile(r"\[([^][|]*)\|([^][|]*)\]")
_NOUN = re.compile(r"(\w+) \{subject\}")


@dataclass(frozen=True)
class Notice:
    """``count`` times one reason, the first time at ``place``; ``remedy`` is what to do about it. ``loss``: something
    that was given is not used, so that it is told as a warning.

    In ``reason`` ``{count}`` stands for the number, ``{subject}`` for what it is about, and ``[record|records]`` for the first of
    the two where the number is one: ``{count} [record has|records have] a field {subject} that is not used``.
    """

    reason: str
    subject: str = ""
    count: int = 1
    place: str = ""
    remedy: str = ""
    loss: bool = False

    def __str__(self) -> str:
        reason = _BY_NUMBER.sub(lambda match: match[1 if self.count == 1 else 2], self.reason)
        text = reason.replace("{count}", f"{self.count:,}").replace("{subject}", self.subject)
        first = f"{', first' if self.count > 1 else ':'} {self.place}" if self.place else ""
        return f"{text}{first}." + (f" {self.remedy}" if self.remedy else "")

    def as_dict(self) -> dict[str, Any]:
        """What is recorded: keys without a value are left out."""
        return {key: value for key, value in asdict(self).items() if value not in ("", False)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Notice:
        """The notice that ``as_dict`` wrote. Raises ``TypeError`` for other keys and values."""
        notice = cls(**record)
        for field in fields(cls):
            if type(getattr(notice, field.name)) is not type(getattr(_EMPTY, field.name)):
                raise TypeError(f"{field.name} of a notice")
        return notice


_EMPTY = Notice("")


class Notices:
    """Notices by reason and subject, in the order in which each first came."""

    def __init__(self, notices: Iterable[Notice] = ()) -> None:
        self._by_reason: dict[tuple[str, str], Notice] = {}
        for notice in notices:
            self.add(notice)

    def __iter__(self) -> Iterator[Notice]:
        return iter(self._by_reason.values())

    def __len__(self) -> int:
        """Number of reasons."""
        return len(self._by_reason)

    def add(self, notice: Notice) -> None:
        """Count ``notice``; of equal reason and subject the first place and remedy stay."""
        key = (notice.reason, notice.subject)
        earlier = self._by_reason.get(key)
        self._by_reason[key] = notice if earlier is None else replace(earlier, count=earlier.count + notice.count)

    def reword(self, reason: str, words: str) -> None:
        """Say ``words`` in place of ``reason``, where more is known of what was counted; all else stays."""
        notices = [replace(notice, reason=words) if notice.reason == reason else notice for notice in self]
        self._by_reason = {(notice.reason, notice.subject): notice for notice in notices}

    def count(self, reason: str) -> int:
        """How often there was ``reason``, with whatever subject."""
        return sum(notice.count for notice in self if notice.reason == reason)


def recorded_texts(records: Any) -> list[str]:
    """The lines of notices as ``as_dict`` wrote them; what is none, since others may have had the file, is left out."""
    notices = []
    for record in records if isinstance(records, list) else []:
        with contextlib.suppress(TypeError):
            notices.append(Notice.of(record))
    return [str(notice) for notice in shortened(notices)]


def shortened(notices: Iterable[Notice], limit: int = LONGEST_LIST) -> list[Notice]:
    """``notices`` as they are told: of one reason the first ``limit`` subjects, and one more that counts the rest (``and 14 more fields``).

    The noun is the word in front of ``{subject}`` in the reason.
    """
    lines: list[Notice] = []
    numbers: dict[str, int] = {}
    for notice in notices:
        numbers[notice.reason] = numbers.get(notice.reason, 0) + 1
        if numbers[notice.reason] <= limit:
            lines.append(notice)
    for reason, number in numbers.items():
        if number > limit:
            last = next(index for index in reversed(range(len(lines))) if lines[index].reason == reason)
            noun = match[1] if (match := _NOUN.search(reason)) else "case"
            lines.insert(
                last + 1,
                replace(
                    lines[last],
                    reason=f"and {{count}} more [{noun}|{noun}s]",
                    subject="",
                    count=number - limit,
                    place="",
                    remedy="",
                ),
            )
    return lines
