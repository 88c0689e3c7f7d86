"""Examples in an Arrow table: written batch by batch, and read through a memory map, so that no size of data needs its size in memory.

The file is an Arrow IPC stream, as the ``datasets`` library writes them: ``datasets.Dataset.from_file`` opens it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import Examples
from pitstop.trainers.data.packing import Arrangement, Packs

_SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("supervised", pa.list_(pa.bool_())),
        ("learnt", pa.int32()),
        ("reference", pa.string()),
        ("group", pa.string()),
        ("cut", pa.bool_()),
        ("answers", pa.int32()),
        ("opens", pa.bool_()),
        ("hash64", pa.uint64()),
    ]
)
_BATCH_TOKENS, _BATCH_ROWS = 1 << 20, 1 << 13


class TableWriter:
    """Gathers examples into batches and writes these into ``sink``, or keeps them in memory where there is none."""

    def __init__(self, sink: BinaryIO | None = None) -> None:
        self.batches: list[pa.RecordBatch] = []
        self._writer = pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), _SCHEMA) if sink is not None else None
        self._waiting: list[Example] = []
        self._tokens = 0

    def add(self, example: Example) -> None:
        """Add one. ``OSError`` from the sink."""
        self._waiting.append(example)
        self._tokens += len(example)
        if self._tokens >= _BATCH_TOKENS or len(self._waiting) >= _BATCH_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left. ``OSError`` from the sink."""
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        batch = _as_batch(self._waiting)
        self._waiting, self._tokens = [], 0
        if self._writer is None:
            self.batches.append(batch)
        else:
            self._writer.write_batch(batch)


def _as_batch(examples: Sequence[Example]) -> pa.RecordBatch:
    offsets = pa.array(np.cumsum([0, *(len(e) for e in examples)], dtype=np.int32))
    ids = pa.array(np.concatenate([e.input_ids for e in examples]).astype(np.int32))
    supervised = pa.array(np.concatenate([e.supervised for e in examples]).astype(bool))
    return pa.record_batch(
        [
            pa.ListArray.from_arrays(offsets, ids),
            pa.ListArray.from_arrays(offsets, supervised),
            pa.array([int(e.supervised.sum()) for e in examples], pa.int32()),
            pa.array([e.reference for e in examples], pa.string()),
            pa.array([e.group for e in examples], pa.string()),
            pa.array([e.cut for e in examples], pa.bool_()),
            pa.array([e.answers for e in examples], pa.int32()),
            pa.array([e.opens for e in examples], pa.bool_()),
            pa.array([e.hash64 for e in examples], pa.uint64()),
        ],
        schema=_SCHEMA,
    )


class TableExamples(Examples):
    """Examples in Arrow batches; an example's token ids are a view of the batch, not a copy."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = list(batches)
        self._starts = [0, *np.cumsum([batch.num_rows for batch in batches]).tolist()]
        self.lengths = _joined([np.diff(batch.column(0).offsets.to_numpy()) for batch in batches], np.int64)
        self.learnt = _joined([batch.column(2).to_numpy() for batch in batches], np.int64)
        self.cut = _joined([batch.column(5).to_numpy(zero_copy_only=False) for batch in batches], np.bool_)
        self.answers = _joined([batch.column(6).to_numpy() for batch in batches], np.int64)
        self.opens = _joined([batch.column(7).to_numpy(zero_copy_only=False) for batch in batches], np.bool_)

    @property
    def hashes(self) -> np.ndarray:
        """See ``Examples``."""
        return _joined([batch.column(8).to_numpy() for batch in self._batches], np.uint64)

    def _at(self, index: int) -> Example:
        number = bisect_right(self._starts, index) - 1
        return _example(self._batches[number], index - self._starts[number])

    def scan(self) -> Iterator[Example]:
        """All of them in order."""
        return (_example(batch, row) for batch in self._read() for row in range(batch.num_rows))

    def _read(self) -> Iterator[pa.RecordBatch]:
        return iter(self._batches)

    def groups(self) -> tuple[np.ndarray, list[str]]:
        """See ``Examples``."""
        names: dict[str, int] = {}
        group_numbers = np.empty(len(self), dtype=np.int64)
        for start, batch in zip(self._starts, self._batches, strict=False):
            encoded = batch.column(4).dictionary_encode()
            numbers = [names.setdefault(name, len(names)) if name else -1 for name in encoded.dictionary.to_pylist()]
            group_numbers[start : start + batch.num_rows] = np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy()]
        return group_numbers, list(names)


class MappedExamples(TableExamples):
    """The examples of a file, mapped into memory: the operating system reads and drops its pages as they are wanted.

    Raises ``pyarrow.ArrowInvalid`` or ``OSError`` for a file that is not whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader:
            if reader.schema != _SCHEMA:
                raise pa.ArrowInvalid(f"{path} has other columns")
            super().__init__(list(reader))

    def _read(self) -> Iterator[pa.RecordBatch]:
        """One after the other through ordinary reads: going through the map from end to end would leave all of it in memory."""
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader


def _joined(arrays: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(arrays).astype(kind) if arrays else np.zeros(0, dtype=kind)


def _example(batch: pa.RecordBatch, row: int) -> Example:
    ids, supervised = batch.column(0), batch.column(1)
    start, end = ids.offsets[row].as_py(), ids.offsets[row + 1].as_py()
    return Example(
        ids.values[start:end].to_numpy(),
        supervised.values[start:end].to_numpy(zero_copy_only=False),
        *(batch.column(number)[row].as_py() for number in range(3, 8)),
    )


def write_arrangement(sink: BinaryIO, arrangement: Arrangement) -> None:
    """Write how a data set is packed, with its fingerprint. ``OSError`` from the sink."""
    packs = arrangement.packs
    members = pa.LargeListArray.from_arrays(pa.array(packs.bounds), pa.array(packs.members))
    schema = pa.schema([("members", members.type)], metadata={"fingerprint": arrangement.fingerprint, "digest": packs.digest()})
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        writer.write_batch(pa.record_batch([members], schema=schema))


def read_arrangement(path: Path) -> Arrangement:
    """What ``write_arrangement`` wrote. ``ValueError`` or ``OSError`` where it is not whole."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        metadata = reader.schema.metadata or {}
        column = reader.read_next_batch().column(0)
    packs = Packs(np.array(column.offsets), np.array(column.values))
    if metadata.get(b"digest") != packs.digest().encode():
        raise ValueError(f"{path} is damaged")
    return Arrangement(packs, metadata[b"fingerprint"].decode())
