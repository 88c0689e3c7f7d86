"""What became of what was read: records and answers that are used, left out and malformed, and each reason with its count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pitstop.configs.notices import Notice, Notices
from pitstop.trainers.data.examples import Examples

_LONGEST_REASONS = 3


@dataclass(frozen=True)
class Tally:
    """Records, or answers: all that were read are used, left out or malformed."""

    used: int = 0
    left_out: int = 0
    malformed: int = 0

    @property
    def read(self) -> int:
        """How many there were."""
        return self.used + self.left_out + self.malformed

    def __add__(self, tally: Tally) -> Tally:
        return Tally(self.used + tally.used, self.left_out + tally.left_out, self.malformed + tally.malformed)

    def as_dict(self) -> dict[str, int]:
        """``read`` and the three parts of it."""
        return {"read": self.read, "used": self.used, "left_out": self.left_out, "malformed": self.malformed}


@dataclass(frozen=True)
class LeftOut:
    """What was read and gave no example.

    ``too_long`` are examples, ``records`` are left out and ``bad`` ones malformed, ``answers_left_out`` and ``answers_bad`` their answers and those of
    records that are used. ``notices`` are the reasons, and whatever else was decided while the data was read. ``options`` are those that
    the chat template asks with, as JSON, each with the answers that are used.
    """

    too_long: int = 0
    records: int = 0
    bad: int = 0
    bad_reasons: tuple[str, ...] = ()
    answers_left_out: int = 0
    answers_bad: int = 0
    notices: tuple[Notice, ...] = ()
    options: tuple[tuple[str, int], ...] = ()


_NOTHING = LeftOut()


@dataclass(frozen=True)
class Counts:
    """The numbers of a data set.

    In ``records``, ``used`` and ``too_long`` a record that gives several examples counts once for each; ``read`` has each record
    once, and ``answers`` each answer. ``options``: how many answers are learnt behind which options of the chat template, as JSON.
    """

    records: int
    used: int
    too_long: int
    bad: int
    bad_reasons: tuple[str, ...]
    tokens: int
    supervised_tokens: int
    cut: int = 0
    read: Tally = Tally()
    answers: Tally = Tally()
    notices: tuple[Notice, ...] = ()
    options: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, examples: Examples, left_out: LeftOut = _NOTHING) -> Counts:
        """The counts of ``examples`` and of what was left out beside them."""
        return cls.beside(
            left_out,
            used=len(examples),
            tokens=int(examples.lengths.sum()),
            learnt=int(examples.learnt.sum()),
            cut=int(examples.cut.sum()),
            records=int(examples.opens.sum()),
            answers=int(examples.answers.sum()),
        )

    @classmethod
    def beside(cls, left_out: LeftOut, *, used: int, tokens: int, learnt: int, cut: int, records: int, answers: int) -> Counts:
        """The counts of ``used`` examples, of which ``learnt`` tokens are supervised, out of so many ``records``, and of what was left out."""
        return cls(
            records=used + left_out.too_long + left_out.bad,
            used=used,
            too_long=left_out.too_long,
            bad=left_out.bad,
            bad_reasons=left_out.bad_reasons,
            tokens=tokens,
            supervised_tokens=learnt,
            cut=cut,
            read=Tally(records, left_out.records, left_out.bad),
            answers=Tally(answers, left_out.answers_left_out, left_out.answers_bad),
            notices=left_out.notices,
            options=left_out.options,
        )

    @classmethod
    def recorded(cls, values: dict[str, Any]) -> Counts:
        """The counts that ``dataclasses.asdict`` gave. Raises ``TypeError``, ``KeyError`` or ``ValueError`` for other values."""
        return cls(
            **{
                **values,
                "bad_reasons": tuple(values["bad_reasons"]),
                "read": Tally(**values["read"]),
                "answers": Tally(**values["answers"]),
                "notices": tuple(Notice(**notice) for notice in values["notices"]),
                "options": tuple((str(options), int(count)) for options, count in values["options"]),
            }
        )

    @classmethod
    def together(cls, counts: Sequence[Counts]) -> Counts:
        """The sums over several data sets, with the first few reasons."""
        return cls(
            records=sum(part.records for part in counts),
            used=sum(part.used for part in counts),
            too_long=sum(part.too_long for part in counts),
            bad=sum(part.bad for part in counts),
            bad_reasons=tuple(reason for part in counts for reason in part.bad_reasons)[:_LONGEST_REASONS],
            tokens=sum(part.tokens for part in counts),
            supervised_tokens=sum(part.supervised_tokens for part in counts),
            cut=sum(part.cut for part in counts),
            read=sum((part.read for part in counts), Tally()),
            answers=sum((part.answers for part in counts), Tally()),
            notices=tuple(Notices(notice for part in counts for notice in part.notices)),
            options=_summed(pair for part in counts for pair in part.options),
        )

    @property
    def left_out(self) -> LeftOut:
        """What was left out."""
        return LeftOut(
            self.too_long,
            self.read.left_out,
            self.bad,
            self.bad_reasons,
            self.answers.left_out,
            self.answers.malformed,
            self.notices,
            self.options,
        )

    @property
    def asked(self) -> dict[str, Any] | None:
        """The options of the chat template that all answers are learnt behind; None where they differ or no template asks."""
        return json.loads(self.options[0][0]) if len(self.options) == 1 else None

    def as_dict(self) -> dict[str, Any]:
        """What a run records of them."""
        values = {name: getattr(self, name) for name in ("records", "used", "too_long", "bad", "tokens", "supervised_tokens")}
        values |= {"cut": self.cut} if self.cut else {}
        return values | {"counts": self.sums()}

    def sums(self) -> dict[str, Any]:
        """The sums of records and answers, and the reasons."""
        return {
            "records": self.read.as_dict(),
            **({"answers": self.answers.as_dict()} if self.answers.read else {}),
            **(
                {"template_options": [{"options": json.loads(text), "answers": count} for text, count in self.options]}
                if self.options
                else {}
            ),
            **({"notices": [notice.as_dict() for notice in self.notices]} if self.notices else {}),
        }


def _summed(pairs: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    counter: Counter[str] = Counter()
    for options, count in pairs:
        counter[options] += count
    return tuple(sorted(counter.items()))
