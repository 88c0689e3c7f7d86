"""Data sets on the Hugging Face Hub, by the ``datasets`` library."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pitstop.configs.errors import DataError, first_line
from pitstop.trainers.data.files.tables import records_of
from pitstop.trainers.data.records import BadRows, NoData, Record

_BATCH = 256
_SCHEME = "hub:"
_ID = re.compile(r"(?P<id>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[^:\s]+))?")
_COLON = re.compile(r":(?![^\[]*\])")
"""A colon that is not in brackets."""


@dataclass(frozen=True)
class HubPlace:
    """``[hub:]owner/name[@revision][:config[:split]]``; None for what is not said."""

    repository: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None

    @classmethod
    def of(cls, text: str) -> HubPlace | None:
        """The place that ``text`` names; None where it is not written so."""
        head, *parts = _COLON.split(text.removeprefix(_SCHEME))
        match = _ID.fullmatch(head)
        if match is None or len(parts) > 2:
            return None
        config, split = [*(part or None for part in parts), None, None][:2]
        return cls(match["id"], match["revision"], config, split)

    def __str__(self) -> str:
        parts = [part or "" for part in (self.config, self.split)]
        return (
            self.repository + (f"@{self.revision}" if self.revision else "") + "".join(f":{part}" for part in parts).rstrip(":")
        )


def read_hub(place: HubPlace, split: str, token: str | None, bad_rows: BadRows) -> Iterator[Record]:
    """Yield the rows of a split, the place's own or else ``split``. Raises ``NoData`` where it cannot be had."""
    name = f"{place.repository} ({place.split or split})"
    batches = load_hub(place, split, token).with_format("arrow").iter(_BATCH)
    yield from records_of(batches, name, bad_rows, lambda number: f"{name} row {number}")


def load_hub(place: HubPlace, split: str, token: str | None) -> Any:
    """A split of a Hub data set as ``datasets`` maps it into memory. Raises ``NoData``."""
    import datasets

    datasets.disable_progress_bars()
    named = {key: value for key, value in (("name", place.config), ("revision", place.revision)) if value}
    wanted = place.split or split
    try:
        return datasets.load_dataset(place.repository, split=wanted, token=token, **named)
    except Exception as error:  # the library raises its own, pyarrow's, pandas' and the Hub client's errors
        raise _chosen_wrongly(place, wanted, token) or NoData(
            f"Cannot read data set {place.repository}: {first_line(error)}", hint=_hint(error)
        ) from error


def _chosen_wrongly(place: HubPlace, split: str, token: str | None) -> DataError | None:
    """The error that names the configs or splits there are, where one of them is missing or has to be chosen."""
    import datasets

    at = {"revision": place.revision, "token": token}
    try:
        configs = datasets.get_dataset_config_names(place.repository, **at)
        if place.config not in configs and (place.config or len(configs) > 1):
            lacks = f" and not {place.config}" if place.config else ""
            return NoData(
                f"{place.repository} has the configs {', '.join(configs)}{lacks}.",
                hint=f"Choose one: {place.repository}:{configs[0]}.",
            )
        splits = datasets.get_dataset_split_names(place.repository, place.config, **at)
    except Exception:  # noqa: BLE001  what is wrong lies deeper, and the first error says it
        return None
    if split.partition("[")[0] in splits:
        return None
    choice = f"{place.repository}:{place.config or configs[0]}:{splits[0]}" if splits else ""
    return NoData(
        f"{place.repository} has no split {split}; it has {', '.join(splits)}.", hint=f"Choose one: --split NAME, or {choice}."
    )


_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)


def _hint(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return "The cache of the library that reads it cannot be written: set HF_HOME to a directory that can."
    return "Check the name, the network and, for private data, HF_TOKEN; a local path must exist."
