"""Scores of generated answers; plain Python, nothing here needs a tensor.

Named-entity extraction is scored by sets: of one record and one entity type, the distinct items of the answer against the
distinct items of the reference, compared as whole strings (case and spacing aside). Over many records the counts are added
up first and divided last (micro average), so a record with many entities weighs more than one with few.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_ITEM_LINE = re.compile(r"^\s*[-*\u2022\u2013]+\s*(?P<item>.*?)[\s.,;]*$")
_NOTHING = frozenset({"none"})


@dataclass(frozen=True)
class EntityCounts:
    """True positives, predicted items and reference items of one or many answers.

    A ratio over nothing is 1.0 where there was nothing to find and nothing was predicted, for then the answer is right;
    otherwise it is 0.0.
    """

    true_positives: int = 0
    predicted: int = 0
    gold: int = 0

    @classmethod
    def of(cls, gold: Iterable[str], predicted: Iterable[str]) -> EntityCounts:
        """Count one answer; repeats, case and spacing do not matter."""
        expected, answered = _normalised(gold), _normalised(predicted)
        return cls(len(expected & answered), len(answered), len(expected))

    def __add__(self, addend: EntityCounts) -> EntityCounts:
        return EntityCounts(
            self.true_positives + addend.true_positives, self.predicted + addend.predicted, self.gold + addend.gold
        )

    @property
    def precision(self) -> float:
        """True positives / predicted."""
        return self._ratio(self.true_positives, self.predicted)

    @property
    def recall(self) -> float:
        """True positives / reference."""
        return self._ratio(self.true_positives, self.gold)

    @property
    def f1(self) -> float:
        """2 · true positives / (predicted + reference)."""
        return self._ratio(2 * self.true_positives, self.predicted + self.gold)

    def _ratio(self, numerator: int, denominator: int) -> float:
        if denominator:
            return numerator / denominator
        return 1.0 if self.predicted == self.gold == 0 else 0.0


class ParsedAnswer(NamedTuple):
    """One answer beside its reference, both as lists of items."""

    entity_type: str
    gold: Iterable[str]
    predicted: Iterable[str]


@dataclass(frozen=True)
class NerScores:
    """Scores over many answers: counts by entity type, and how many answers matched their reference entirely."""

    by_type: Mapping[str, EntityCounts] = field(default_factory=dict)
    answers: int = 0
    exact: int = 0

    @property
    def micro(self) -> EntityCounts:
        """Counts over all types."""
        return sum(self.by_type.values(), EntityCounts())

    def as_metrics(self) -> dict[str, float]:
        """Return flat metrics: ``ner_precision``, ``ner_recall``, ``ner_f1``, ``ner_exact_match``, and ``ner_{type}_…``."""
        metrics = _named("ner", self.micro)
        metrics["ner_exact_match"] = self.exact / self.answers if self.answers else 0.0
        for entity_type, counts in self.by_type.items():
            metrics |= _named(f"ner_{entity_type}", counts)
        return metrics


def parse_items(completion: str) -> list[str]:
    """Return the items of ``- item`` lines in order, each once; ``- none`` and lines without a dash give nothing.

    ``*``, ``•`` and an en dash do for the dash, and a full stop, comma or semicolon at the end of an item is dropped:
    small models drift between these. A ``- none`` beside items is ignored.
    """
    items: dict[str, str] = {}
    for line in completion.splitlines():
        match = _ITEM_LINE.match(line)
        item = " ".join(match["item"].split()) if match else ""
        key = item.casefold()
        if any(character.isalnum() for character in item) and key not in _NOTHING:
            items.setdefault(key, item)
    return list(items.values())


def score_answers(answers: Iterable[ParsedAnswer]) -> NerScores:
    """Return the scores of ``answers``; types are listed in the order in which they first occur."""
    by_type: dict[str, EntityCounts] = {}
    total = exact = 0
    for answer in answers:
        counts = EntityCounts.of(answer.gold, answer.predicted)
        by_type[answer.entity_type] = by_type.get(answer.entity_type, EntityCounts()) + counts
        total += 1
        exact += counts.true_positives == counts.predicted == counts.gold
    return NerScores(by_type, total, exact)


def score_completions(completions: Iterable[tuple[str, str, str]]) -> NerScores:
    """Return the scores of ``(entity type, reference completion, generated completion)`` texts."""
    return score_answers(
        ParsedAnswer(entity_type, parse_items(reference), parse_items(generated))
        for entity_type, reference, generated in completions
    )


def _normalised(items: Iterable[str]) -> frozenset[str]:
    return frozenset(" ".join(item.split()).casefold() for item in items)


def _named(prefix: str, counts: EntityCounts) -> dict[str, float]:
    return {f"{prefix}_precision": counts.precision, f"{prefix}_recall": counts.recall, f"{prefix}_f1": counts.f1}
