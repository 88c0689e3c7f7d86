"""A share of a data set held out for evaluation: whole groups of examples, as a function of the seed."""

from __future__ import annotations

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.trainers.data.counts import Counts, LeftOut
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.examples import Examples, ExampleSubset
from pitstop.trainers.data.mixture import Mixture, mixed
from pitstop.trainers.data.order import held_out


def hold_out(dataset: Dataset, fraction: float, *, seed: int, max_length: int, packing: bool) -> tuple[Dataset, Dataset]:
    """Split off a share of the groups of examples for evaluation: (training, evaluation), each with at least one example.

    In a mixture groups reach over its parts, and those parts alone are evaluated that something is held out of. Raises
    ``DataError`` where there are fewer than two groups, and where nothing is left of a part to train on.
    """
    is_held_out = _held(dataset.examples, fraction, seed)
    train: list[Dataset] = []
    evaluation: list[tuple[str, Dataset]] = []
    start = 0
    for number, part in enumerate(dataset.parts):
        mask = is_held_out[start : start + len(part.examples)]
        start += len(part.examples)
        name = dataset.names[number] if dataset.names else ""
        if mask.all():
            raise DataError(
                f"EVAL_FRACTION holds out all there is of {name}.", hint="Give a smaller --eval-fraction, or --eval-dataset."
            )
        # Records that were left out count as training data: they never had a chance to be held out.
        train.append(_part(part.examples, ~mask, part.counts.left_out, max_length, packing))
        if mask.any():
            evaluation.append((name, _part(part.examples, mask, LeftOut(), max_length, packing)))
    weights = dataset.weights if isinstance(dataset, Mixture) else None
    return mixed(train, dataset.names, weights), mixed([part for _, part in evaluation], [name for name, _ in evaluation])


def _held(examples: Examples, fraction: float, seed: int) -> np.ndarray:
    """For each example whether it is held out, as ``bool``."""
    group_of, total = _groups(examples)
    if total < 2:
        raise DataError(
            "EVAL_FRACTION needs at least two records (of two articles, where records say which they are from).",
            hint="Give more data, or --eval-dataset.",
        )
    chosen = np.zeros(total, dtype=bool)
    chosen[held_out(total, fraction, seed=seed)] = True
    return np.asarray(chosen[group_of])


def _part(examples: Examples, mask: np.ndarray, left_out: LeftOut, max_length: int, packing: bool) -> Dataset:
    members = ExampleSubset(examples, np.flatnonzero(mask))
    return Dataset(members, max_length=max_length, packing=packing, counts=Counts.of(members, left_out))


def _groups(examples: Examples) -> tuple[np.ndarray, int]:
    """For each example the number of its group, in the order in which groups first occur; and how many groups there are."""
    named, names = examples.groups()
    keys = np.where(named < 0, len(names) + np.arange(len(named)), named)  # without a group each is its own
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)], len(first)
