"""What tokens follow from: the data, which need not be read to be identified, and the tokenizer with the libraries that apply it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import file_sha256
from pitstop.trainers.data.files.hub import load_hub
from pitstop.trainers.data.files.places import EXAMPLE_SCHEME, looks_like_hub_id

SMALL_BYTES = 16_000_000
"""Files of at most so many bytes together are read into memory and tokenised at every start, which takes a second or two."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".msgpack", ".h5")
_LIBRARIES = ("pitstop", "tokenizers", "transformers", "jinja2")


def is_large(specs: Sequence[str]) -> bool:
    """Whether the data is to be held in a table: more bytes than ``SMALL_BYTES``, or of a size that is not known."""
    total = 0
    for spec in specs:
        if spec.startswith(EXAMPLE_SCHEME):
            continue
        files = _files(Path(spec).expanduser())
        if files is None:
            return True  # the Hub, or not there, which reading it will tell
        total += sum(file.stat().st_size for file in files)
    return total > SMALL_BYTES


def identify(spec: str, *, split: str, token: str | None, digest: Callable[[Path], str]) -> str | None:
    """What changes with the content of a ``--dataset`` value; ``digest`` gives the SHA-256 of a file.

    Raises ``DataError`` for a Hub data set that cannot be loaded. None where nothing identifies it.
    """
    if spec.startswith(EXAMPLE_SCHEME):
        return spec
    path = Path(spec).expanduser()
    files = _files(path)
    if files is None and not looks_like_hub_id(spec):
        return None
    if files is None:
        fingerprint = getattr(load_hub(spec, split, token), "_fingerprint", None)
        return f"hub {fingerprint}" if fingerprint else None
    described = [[file.suffix, digest(file)] for file in files]  # the ending decides how a file is read
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _files(path: Path) -> list[Path] | None:
    """The files that are read for a path, in order; None where it is none. An unreadable directory has none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        return None
    try:
        return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))  # tasks know more endings than one
    except OSError:  # which reading it will tell
        return []


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
