"""One entry of the cache of tokenised data: its files, and how damage to them is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pitstop.checkpointing.disk.manifest import sealed, unsealed
from pitstop.checkpointing.disk.storage import open_regular_file, read_regular_file
from pitstop.trainers.data.cache.table import MappedExamples, TableWriter, read_arrangement, write_arrangement
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import Examples
from pitstop.trainers.data.packing import Arrangement

INDEX, EXAMPLES = "index.json", "examples.arrow"
FORMAT_VERSION = 1
_LARGEST_INDEX = 1 << 20

Fill = Callable[[Callable[[Example], None]], Callable[[Examples], Counts]]
"""Is given what takes each example, and returns what counts them once they are all there."""


class KeptExamples(MappedExamples):
    """The examples of an entry; how they are packed is kept beside them, where the disk takes it."""

    def __init__(self, entry: Path) -> None:
        super().__init__(entry / EXAMPLES)
        self._entry = entry

    def arranged(self, name: str, make: Callable[[], Arrangement]) -> Arrangement:
        """See ``Examples``."""
        path = self._entry / f"packs-{hashlib.sha256(name.encode()).hexdigest()[:32]}.arrow"
        with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):  # pyarrow's own errors are of these kinds
            return read_arrangement(path)
        arrangement = make()
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # without it the next start packs again
            try:
                with os.fdopen(_create(temporary), "wb") as file:
                    write_arrangement(file, arrangement)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        return arrangement


def write_entry(directory: Path, fill: Fill) -> None:
    """Make the files of an entry in ``directory``, on the disk when this returns. ``OSError`` from it, and what ``fill`` raises."""
    directory.mkdir(mode=0o700)
    with os.fdopen(_create(directory / EXAMPLES), "wb", buffering=1 << 20) as file:
        table = TableWriter(file)
        count = fill(table.add)
        table.close()
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    body = {"format_version": FORMAT_VERSION, "size": size, "counts": asdict(count(MappedExamples(directory / EXAMPLES)))}
    with os.fdopen(_create(directory / INDEX), "wb") as file:
        file.write(sealed(body))
        file.flush()
        os.fsync(file.fileno())


def open_entry(directory: Path) -> tuple[KeptExamples, Counts]:
    """What ``write_entry`` wrote. ``OSError``, ``ValueError`` or ``CheckpointError`` where it is not whole."""
    body = unsealed(read_regular_file(directory / INDEX, limit=_LARGEST_INDEX), str(directory / INDEX), newest=FORMAT_VERSION)
    if (size := (directory / EXAMPLES).stat().st_size) != body["size"]:
        raise ValueError(f"{EXAMPLES} has {size:,} bytes, and {body['size']:,} were written")
    counts = Counts.recorded(body["counts"])
    examples = KeptExamples(directory)
    if Counts.of(examples, counts.left_out) != counts:
        raise ValueError(f"{EXAMPLES} holds other examples than were written")
    return examples, counts


def _create(path: Path) -> int:
    path.unlink(missing_ok=True)
    return open_regular_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
