"""Examples that are the same: equal tokens, and the same of them learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pitstop.configs.notices import Notice
from pitstop.trainers.data.counts import Counts
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
    distinct, left_out = Distinct(examples, keep), counts.left_out
    return distinct, Counts.of(
        distinct,
        replace(
            left_out,
            records=left_out.records + int(examples.opens.sum() - distinct.opens.sum()),
            answers_left_out=left_out.answers_left_out + int(examples.answers[~keep].sum()),
            notices=(*left_out.notices, Notice(DROPPED, count=int((~keep).sum()))),
        ),
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
