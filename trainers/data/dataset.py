"""A tokenised, packed data set: examples, sequences, and the fingerprint that a resume compares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.packing import PACKING_VERSION, pack, singles
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.base import BadRecord, Task


@dataclass(frozen=True)
class Counts:
    """What became of the records of a data set; one that gives several examples counts once for each."""

    records: int
    used: int
    too_long: int
    bad: int
    bad_reasons: tuple[str, ...]
    tokens: int
    supervised_tokens: int
    cut: int = 0


class Dataset:
    """Examples grouped into sequences of at most ``max_length`` tokens."""

    def __init__(self, examples: Sequence[Example], *, max_length: int, packing: bool, counts: Counts) -> None:
        self.examples = list(examples)
        self.packs = pack([len(e) for e in self.examples], max_length) if packing else singles(len(self.examples))
        self.counts = counts
        self.fingerprint = _fingerprint(self.examples, max_length if packing else 0)
        self._supervised = np.array(
            [sum(int(self.examples[i].supervised.sum()) for i in members) for members in self.packs], dtype=np.int64
        )
        self._tokens = np.array([sum(len(self.examples[i]) for i in members) for members in self.packs], dtype=np.int64)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.packs)

    def sequence_examples(self, sequence_ids: Iterable[int]) -> list[Example]:
        """The examples of the given sequences, in order."""
        return [self.examples[i] for sequence in sequence_ids for i in self.packs[sequence]]

    def supervised_tokens(self, sequence_ids: np.ndarray) -> int:
        """Tokens with a loss in the given sequences."""
        return int(self._supervised[sequence_ids].sum())

    def tokens(self, sequence_ids: np.ndarray) -> int:
        """All tokens in the given sequences."""
        return int(self._tokens[sequence_ids].sum())


def load_dataset(
    specs: Sequence[str],
    task: Task,
    *,
    max_length: int,
    packing: bool,
    skip_bad_rows: bool = False,
    split: str = "train",
    token: str | None = None,
) -> Dataset:
    """Read, tokenise and pack the data of ``specs``.

    Records longer than ``max_length`` tokens are left out and counted. Raises ``DataError`` for unreadable or bad
    records (unless these are skipped) and when nothing usable is left.
    """
    examples, counts = _read_examples(specs, task, max_length, skip_bad_rows, split, token)
    return Dataset(examples, max_length=max_length, packing=packing, counts=counts)


def _read_examples(
    specs: Sequence[str], task: Task, max_length: int, skip_bad_rows: bool, split: str, token: str | None
) -> tuple[list[Example], Counts]:
    bad_rows = BadRows(skip_bad_rows)
    examples: list[Example] = []
    too_long = 0
    for spec in specs:
        for record in task.records(spec, bad_rows, split=split, token=token):
            try:
                found = task.examples(record)
            except BadRecord as error:
                bad_rows.report(record.where, str(error))
                continue
            fitting = [example for example in found if len(example) <= max_length]
            too_long += len(found) - len(fitting)
            examples += fitting
    counts = Counts(
        records=len(examples) + too_long + bad_rows.count,
        used=len(examples),
        too_long=too_long,
        bad=bad_rows.count,
        bad_reasons=bad_rows.reasons,
        tokens=sum(len(e) for e in examples),
        supervised_tokens=sum(int(e.supervised.sum()) for e in examples),
        cut=sum(e.cut for e in examples),
    )
    if not examples:
        raise _nothing_left(specs, counts, max_length)
    return examples, counts


def _nothing_left(specs: Sequence[str], counts: Counts, max_length: int) -> DataError:
    name = ", ".join(specs)
    if counts.too_long:
        return DataError(
            f"{name}: all {counts.too_long:,} usable records are longer than MAX_LENGTH = {max_length} tokens.",
            hint="Raise --max-length, or split the records.",
        )
    if counts.bad:
        return DataError(f"{name}: every row is malformed; the first: {counts.bad_reasons[0]}.")
    return DataError(f"{name}: the data set is empty.", hint="Give a file with at least one record.")


def hold_out(dataset: Dataset, fraction: float, *, seed: int, max_length: int, packing: bool) -> tuple[Dataset, Dataset]:
    """Split off a share of the groups of examples for evaluation: (training, evaluation), each with at least one example.

    Raises ``DataError`` where there are fewer than two groups.
    """
    from pitstop.trainers.data.order import permutation

    groups = _groups(dataset.examples)
    total = len(groups)
    if total < 2:
        raise DataError(
            "EVAL_FRACTION needs at least two records (of two articles, where records say which they are from).",
            hint="Give more data, or --eval-dataset.",
        )
    held = min(total - 1, max(1, round(total * fraction)))
    order = permutation(total, seed=seed, epoch=2**32)  # an epoch number that training never reaches
    parts = [sorted(i for group in chosen for i in groups[group]) for chosen in (order[held:], order[:held])]

    def part(indices: Sequence[int], counts: Counts) -> Dataset:
        examples = [dataset.examples[i] for i in indices]
        left_out = counts.too_long + counts.bad
        counts = replace(
            counts,
            records=len(examples) + left_out,
            used=len(examples),
            tokens=sum(len(e) for e in examples),
            supervised_tokens=sum(int(e.supervised.sum()) for e in examples),
            cut=sum(e.cut for e in examples),
        )
        return Dataset(examples, max_length=max_length, packing=packing, counts=counts)

    # Records that were left out count as training data: they never had a chance to be held out.
    return part(parts[0], dataset.counts), part(parts[1], replace(dataset.counts, too_long=0, bad=0, bad_reasons=()))


def _groups(examples: Sequence[Example]) -> list[list[int]]:
    """The examples' numbers, those of one group together, in the order in which groups first occur."""
    groups: dict[str | int, list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(example.group or number, []).append(number)
    return list(groups.values())


def _fingerprint(examples: Sequence[Example], packed_length: int) -> str:
    """SHA-256 over token ids, supervision and packing: equal fingerprints give equal batches."""
    digest = hashlib.sha256(f"pitstop-data-{PACKING_VERSION}-{packed_length}-{len(examples)}".encode())
    for example in examples:
        digest.update(len(example).to_bytes(8, "little"))
        digest.update(example.input_ids.astype("<i4").tobytes())
        digest.update(np.packbits(example.supervised).tobytes())
    return digest.hexdigest()
