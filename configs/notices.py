"""What is decided on the user's behalf: counted by reason, told once, and on record in metadata.json.

A field that is not used, a file that is not read, a weight that the architecture has no place for, a variable that is ignored: whoever
passes over such a thing adds it to ``Notices`` in place of a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

_BY_NUMBER = re.compile(r"\[([^][|]*)\|([^][|]*)\]")


@dataclass(frozen=True)
class Notice:
    """``count`` times one reason, the first time at ``place``; ``remedy`` is what to do about it.

    In ``reason`` ``{count}`` stands for the number, ``{subject}`` for what it is about, and ``[record|records]`` for the first of
    the two where the number is one: ``{count} [record has|records have] a field {subject} that is not used``.
    """

    reason: str
    subject: str = ""
    count: int = 1
    place: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        reason = _BY_NUMBER.sub(lambda match: match[1 if self.count == 1 else 2], self.reason)
        text = reason.replace("{count}", f"{self.count:,}").replace("{subject}", self.subject)
        first = f"{', first' if self.count > 1 else ':'} {self.place}" if self.place else ""
        return f"{text}{first}." + (f" {self.remedy}" if self.remedy else "")

    def as_dict(self) -> dict[str, Any]:
        """What is recorded: keys without a value are left out."""
        values = {"reason": self.reason, "subject": self.subject, "count": self.count, "place": self.place, "remedy": self.remedy}
        return {key: value for key, value in values.items() if value != ""}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Notice:
        """The notice that ``as_dict`` wrote. Raises ``TypeError`` for other keys."""
        return cls(**record)


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

    def count(self, reason: str) -> int:
        """How often there was ``reason``, with whatever subject."""
        return sum(notice.count for notice in self if notice.reason == reason)
