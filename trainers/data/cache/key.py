"""What tokens follow from: the data, which need not be read to be identified, and the tokenizer with the libraries that apply it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import file_sha256
from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.packed import is_packed
from pitstop.trainers.data.files.places import EXAMPLE_SCHEME, USUAL, files_of, hub_place
from pitstop.trainers.data.files.saved import is_saved
from pitstop.trainers.data.records import NO_MORE, Formats

SMALL_BYTES = 16_000_000
"""Files of at most so many bytes together are read into memory and tokenised at every start, which takes a second or two."""

_COMMIT = re.compile("[0-9a-f]{40}")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".msgpack", ".h5")
_LIBRARIES = ("pitstop", "tokenizers", "transformers", "jinja2")


def is_large(specs: Sequence[str]) -> bool:
    """Whether the data is to be held in a table: more bytes than ``SMALL_BYTES``, or of a size that is not known."""
    total = 0
    for spec in specs:
        if spec.startswith(EXAMPLE_SCHEME):
            continue
        files = _all_files(spec)
        if files is None or any(is_packed(file) for file in files):
            return True  # the Hub, or not there, which reading it will tell
        total += sum(file.stat().st_size for file in files)
    return total > SMALL_BYTES


def identify(
    spec: str,
    *,
    split: str,
    token: str | None,
    digest: Callable[[Path], str],
    extra_formats: Formats = NO_MORE,
    first: bool = False,
) -> str | None:
    """What changes with the content of a ``--dataset`` value; ``digest`` gives the SHA-256 of a file; the others as in ``read_records``.

    A Hub data set is identified by its commit, which a run records. Raises ``DataError`` for a directory without data. None where
    nothing identifies it.
    """
    if spec.startswith(EXAMPLE_SCHEME):
        return spec
    listing = files_of(spec, split=split, formats={**USUAL, **extra_formats}, first=first)
    place = hub_place(spec) if listing is None else None
    if place is not None:
        return (
            f"hub {place} {split}, datasets {metadata.version('datasets')}" if _COMMIT.fullmatch(place.revision or "") else None
        )
    if listing is None:
        return None
    # The endings decide how a file is read; what is not read is told again out of the cache.
    described = [[[*file.suffixes[-2:]], digest(file)] for file in listing.files]
    return hashlib.sha256(json.dumps([described, [notice.as_dict() for notice in listing.notices]]).encode()).hexdigest()


def _all_files(spec: str) -> list[Path] | None:
    """The files that may be read for a value, of any split and by any task; None where it names none. An unreadable directory has none."""
    path = Path(spec).expanduser()
    if path.is_file():
        return [path]
    try:
        if path.is_dir():
            below = path.rglob("*.arrow") if is_saved(path) else path.iterdir()
            return sorted(file for file in below if file.is_file() and not file.name.startswith("."))
        listing = files_of(spec)
    except (DataError, OSError):  # which reading it will tell
        return []
    return None if listing is None else list(listing.files)


def tokenizer_key(tokenizer: Any, model: Path) -> dict[str, Any]:
    """The tokenizer's part of every key of tokenised data, and the libraries', as JSON-able values.

    All files of the model's directory ``model`` but its weights count as the tokenizer's: which of them one reads, only it knows.
    """
    files = sorted(file for file in model.iterdir() if file.is_file() and file.suffix not in _WEIGHTS)
    described = [[file.name, file_sha256(file.resolve())] for file in files]
    identity = [described, tokenizer.chat_template, type(tokenizer).__name__]
    return {
        "tokenizer": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
    }
