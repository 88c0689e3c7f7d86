"""Data sets on the Hugging Face Hub, by the ``datasets`` library."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from pitstop.configs.errors import first_line
from pitstop.trainers.data.files.tables import records_of
from pitstop.trainers.data.records import BadRows, NoData, Record

_BATCH = 256


def read_hub(repository: str, split: str, token: str | None, bad_rows: BadRows) -> Iterator[Record]:
    """Yield the rows of a split. Raises ``NoData`` where it cannot be had."""
    name = f"{repository} ({split})"
    batches = load_hub(repository, split, token).with_format("arrow").iter(_BATCH)
    yield from records_of(batches, name, bad_rows, lambda number: f"{name} row {number}")


def load_hub(repository: str, split: str, token: str | None) -> Any:
    """A split of a Hub data set as ``datasets`` maps it into memory. Raises ``NoData``."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(repository, split=split, token=token)
    except Exception as error:  # the library raises its own, pyarrow's, pandas' and the Hub client's errors
        raise NoData(f"Cannot read data set {repository}: {first_line(error)}", hint=_hint(error)) from error


_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)


def _hint(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return "The cache of the library that reads it cannot be written: set HF_HOME to a directory that can."
    return "Check the name, the network and, for private data, HF_TOKEN; a local path must exist."
