"""Examples that are the same: equal tokens, and the same of them learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pitstop.configs.notices import Notice
from pitstop.trainers.data.counts import Counts, Tally
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import Examples, ExampleSubset

REPEATED = "{count} [example occurs|examples occur] more than once"
DROPPED = "{count} [example was|examples were] left out, since an earlier one is the same"
IN_TRAINING = "{count} of {total} evaluation examples [is|are] in the training data, too"


def repeated(hashes: np.ndarray) -> int:
    """How many of ``hashes`` (uint64) occur more than once."""
    return int((np.unique(hashes, return_counts=True)[1] > 1).sum())


def told(examples: Examples) -> list[Notice]:
    """What there is to tell of repeated examples that stay."""
    count = repeated(examples.hashes)
    return [Notice(REPEATED, count=count, remedy="--duplicates drop takes each of them once.")] if count else []


def without_repeated(examples: Examples, counts: Counts) -> tuple[Examples, Counts]:
    """The first of equal examples each, and the counts with the others left out."""
    keep = _first_ones(examples)
    if keep.all():
        return examples, counts
    distinct = Distinct(examples, keep)
    records, answers = int(examples.opens.sum() - distinct.opens.sum()), int(examples.answers[~keep].sum())
    dropped = int((~keep).sum())
    return distinct, replace(
        counts,
        used=len(distinct),
        records=counts.records - dropped,
        tokens=int(distinct.lengths.sum()),
        supervised_tokens=int(distinct.learnt.sum()),
        cut=int(distinct.cut.sum()),
        read=_moved(counts.read, records),
        answers=_moved(counts.answers, answers),
        notices=(*counts.notices, Notice(DROPPED, count=dropped)),
    )


def in_training(evaluation: Examples, train: Examples) -> list[Notice]:
    """A warning where examples of the evaluation are trained on, too."""
    count = int(np.isin(evaluation.hashes, train.hashes).sum())
    reason = IN_TRAINING.replace("{total}", f"{len(evaluation):,}")
    return [Notice(reason, count=count, loss=True)] if count else []


class Distinct(ExampleSubset):
    """The examples that ``keep`` (bool) says; the first of a record that is left opens it."""

    def __init__(self, examples: Examples, keep: np.ndarray) -> None:
        super().__init__(examples, np.flatnonzero(keep))
        record = np.cumsum(examples.opens)[keep]
        self.opens = np.diff(record, prepend=0) > 0

    def _at(self, index: int) -> Example:
        return replace(super()._at(index), opens=bool(self.opens[index]))


def _moved(tally: Tally, count: int) -> Tally:
    """``count`` of those that were used are left out."""
    return Tally(tally.used - count, tally.left_out + count, tally.malformed)


def _first_ones(examples: Examples) -> np.ndarray:
    """For each example whether none before it is the same, as ``bool``: of equal hashes the examples are compared."""
    _, first, inverse, counts = np.unique(examples.hashes, return_index=True, return_inverse=True, return_counts=True)
    keep = np.ones(len(examples), dtype=bool)
    kept: dict[int, list[Example]] = {}
    for index in np.flatnonzero(counts[inverse] > 1).tolist():
        example, others = examples[index], kept.setdefault(int(inverse[index]), [])
        if index != first[inverse[index]] and any(example.equals(other) for other in others):
            keep[index] = False
        else:
            others.append(example)
    return keep
