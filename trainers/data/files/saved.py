"""Directories that ``datasets`` wrote by ``save_to_disk``: Arrow files that ``state.json`` lists, or such a directory for each split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.strict_json import read_json
from pitstop.configs.errors import CheckpointError, DataError
from pitstop.trainers.data.files.listing import Listing
from pitstop.trainers.data.records import NoData
from pitstop.trainers.data.unread import FILES, OTHER_SPLITS, unread

_STATE, _SPLITS, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"


def is_saved(directory: Path) -> bool:
    """Whether ``save_to_disk`` wrote a directory."""
    return (directory / _SPLITS).is_file() or ((directory / _STATE).is_file() and (directory / _INFO).is_file())


def saved_files(directory: Path, split: str) -> Listing:
    """Its Arrow files, of ``split`` where it has splits. Raises ``NoData`` for another split, ``DataError`` for a damaged description."""
    if not (directory / _SPLITS).is_file():
        files = [str(entry["filename"]) if _names_file(entry) else "" for entry in _listed(directory / _STATE, "_data_files")]
        if not all(files):
            raise DataError(f"{directory / _STATE}: its '_data_files' name no files.", hint="Save the data set again.")
        others = [
            path.name for path in sorted(directory.iterdir()) if path.name not in (_STATE, _INFO, *files) and path.name[0] != "."
        ]
        return Listing(tuple(directory / name for name in files), tuple(unread(FILES, directory, others)))
    splits = [str(name) for name in _listed(directory / _SPLITS, "splits")]
    if split not in splits:
        raise NoData(
            f"{directory} has no split {split}; it has {', '.join(splits)}.", hint=f"Name one: {directory / (splits or [''])[0]}"
        )
    listing = saved_files(directory / split, split)
    others = [name for name in splits if name != split]
    return Listing(listing.files, tuple(unread(OTHER_SPLITS.replace("file", "folder"), directory, others)))


def _names_file(entry: Any) -> bool:
    name = entry.get("filename") if isinstance(entry, dict) else None
    return isinstance(name, str) and "/" not in name


def _listed(path: Path, key: str) -> list[Any]:
    try:
        content = read_json(path)
    except CheckpointError as error:
        raise DataError(error.message, hint="Save the data set again.") from error
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, list):
        raise DataError(f"{path}: it has no list '{key}'.", hint="Save the data set again.")
    return value
