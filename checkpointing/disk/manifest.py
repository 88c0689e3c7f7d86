"""The manifest of a checkpoint: what it is, what it was made from, and the size and hash of each of its files.

A manifest is JSON in exactly one spelling. Reading it back checks the spelling byte by byte, so that no change to the file,
however small, goes unseen; the digest in it says that the content is what was written.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pitstop.checkpointing.disk import layout, strict_json
from pitstop.checkpointing.disk.storage import FileRecord
from pitstop.configs.errors import CheckpointError

FORMAT_VERSION = 1
MAX_BYTES = 16 * 1024 * 1024
"""A manifest longer than this is refused before it is read."""

MAX_FILES = 4096
"""Files that one manifest may list."""

MAX_TOTAL_SIZE = 32 * 1024**4
"""Bytes that the files of one manifest may claim together: 32 TiB."""

MAX_STEP = 10**15
"""More optimizer steps than any training takes."""

MAX_PROCESSES = MAX_FILES - 16
"""Processes that may have saved one checkpoint: each has a file of its own, and some belong to all."""

_MAX_NAME = 400
_MAX_DEPTH = 8
_MAX_EPOCH = 1e9

_MANIFESTS = {layout.MANIFEST.lower(), layout.BASE_MANIFEST.lower()}
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


@functools.cache
def own_version() -> str:
    """The installed version of Pitstop; ``unknown`` in a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pitstop")
    except PackageNotFoundError:
        return "unknown"


class NewerFormatError(CheckpointError):
    """Written by a newer Pitstop in a format that this one does not know: not damage, so never set aside."""


class ManifestError(CheckpointError):
    """A manifest that is not what was written."""


@dataclass(frozen=True)
class Manifest:
    """What a committed checkpoint says of itself.

    ``step`` counts optimizer steps, ``epoch`` passes over the data (2.5: in the middle of the third). A metric that was
    not finite is None. ``saved_at`` carries its offset from UTC. ``files`` leaves out the manifest itself.
    """

    name: str
    step: int
    epoch: float
    metrics: Mapping[str, float | None]
    saved_at: datetime
    world_size: int
    files: Mapping[str, FileRecord]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    pitstop_version: str = field(default_factory=own_version)
    format_version: int = FORMAT_VERSION

    @property
    def size(self) -> int:
        """Bytes of all files together, the manifest aside."""
        return sum(record.size for record in self.files.values())

    def to_bytes(self) -> bytes:
        """The one spelling of this manifest. ``CheckpointError`` when a file's name or a value cannot stand in it."""
        check_file_names(self.files)
        _check_sizes(self.files)
        body = {
            "format_version": self.format_version,
            "name": self.name,
            "step": int(self.step),
            "epoch": float(self.epoch),
            "metrics": finite_metrics(self.metrics),
            "saved_at": self.saved_at.isoformat(),
            "world_size": int(self.world_size),
            "files": {name: {"size": record.size, "sha256": record.sha256} for name, record in self.files.items()},
            "fingerprints": dict(self.fingerprints),
            "versions": dict(self.versions),
            "pitstop_version": self.pitstop_version,
        }
        return sealed(body)


def sealed(body: Mapping[str, Any]) -> bytes:
    """``body`` as JSON in its one spelling, with the digest of itself added."""
    return _spell({**body, "digest": hashlib.sha256(_spell(body)).hexdigest()})


def _spell(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def unsealed(raw: bytes, place: str, *, newest: int = FORMAT_VERSION) -> dict[str, Any]:
    """The content of what ``sealed`` wrote, its digest taken off.

    ``NewerFormatError`` when its format version is above ``newest``; ``ManifestError`` for anything that ``sealed`` would
    not have written.
    """
    try:
        if not raw.isascii():
            raise ValueError("it is not ASCII")
        content = strict_json.parse_json(raw)
        if not isinstance(content, dict):
            raise ValueError("a JSON object is expected")
        _refuse_newer(content, place, newest)
        digest = content.pop("digest", None)
        spelt = _spell(content)
        spelt_whole = sealed(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{place}: not a manifest ({str(error)[:200]})") from None
    if digest != hashlib.sha256(spelt).hexdigest():
        raise ManifestError(f"{place}: the manifest's digest does not fit its content")
    if spelt_whole != raw:
        raise ManifestError(f"{place}: the manifest was rewritten by something else")
    return content


def _refuse_newer(content: dict[str, Any], place: str, newest: int) -> None:
    version = content.get("format_version")
    if type(version) is not int or not 1 <= version < 10**6:
        raise ManifestError(f"{place}: the manifest has no format version")
    if version > newest:
        writer = content.get("pitstop_version")
        raise NewerFormatError(
            f"{place}: written by pitstop {writer[:40] if isinstance(writer, str) else '(unknown version)'} "
            f"in format {version}; this is pitstop {own_version()}, which reads formats up to {newest}",
            hint="upgrade: pip install --upgrade pitstop",
        )


def parse_manifest(raw: bytes, place: str) -> Manifest:
    """Read a manifest strictly; ``place`` names it in errors.

    ``NewerFormatError`` for a newer format, ``ManifestError`` for every kind of damage and for file names that could lead
    out of the checkpoint.
    """
    content = unsealed(raw, place)
    try:
        manifest = _from_content(content)
        check_file_names(manifest.files)
        _check_sizes(manifest.files)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ManifestError(f"{place}: {type(error).__name__} in the manifest: {error}") from None
    except CheckpointError as error:
        raise ManifestError(f"{place}: {error.message}") from None
    if manifest.to_bytes() != raw:  # e.g. a key that no version 1 writer writes
        raise ManifestError(f"{place}: the manifest holds something that its format does not have")
    return manifest


def _from_content(content: Mapping[str, Any]) -> Manifest:
    saved_at = datetime.fromisoformat(content["saved_at"])
    if saved_at.tzinfo is None:
        raise ValueError("saved_at has no offset from UTC")
    name, step = content["name"], _natural(content["step"], MAX_STEP)
    if not layout.is_checkpoint_name(name) or layout.step_of_name(name) not in (None, step):
        raise ValueError(f"the name {reprlib.repr(name)} does not fit step {step}")
    epoch = _finite(content["epoch"])
    if not 0 <= epoch <= _MAX_EPOCH:
        raise ValueError(f"epoch {epoch} is out of range")
    world_size = _natural(content["world_size"], MAX_PROCESSES)
    if world_size < 1:
        raise ValueError("world_size is below 1")
    if not isinstance(content["pitstop_version"], str):
        raise ValueError("pitstop_version is not a text")
    return Manifest(
        name=name,
        step=step,
        epoch=epoch,
        metrics={key: None if value is None else _finite(value) for key, value in content["metrics"].items()},
        saved_at=saved_at,
        world_size=world_size,
        files={name: parse_file_record(record) for name, record in content["files"].items()},
        fingerprints=_texts(content["fingerprints"]),
        versions=_texts(content["versions"]),
        pitstop_version=content["pitstop_version"],
        format_version=content["format_version"],
    )


def parse_file_record(record: Any) -> FileRecord:
    """``{"size": …, "sha256": …}`` as a record; ``ValueError`` for anything else."""
    if not isinstance(record, dict) or set(record) != {"size", "sha256"} or not is_sha256(record["sha256"]):
        raise ValueError(f"a file entry is {reprlib.repr(record)}; size and sha256 are expected")
    return FileRecord(_natural(record["size"], MAX_TOTAL_SIZE), record["sha256"])


def check_file_names(names: Collection[str]) -> None:
    """Refuse with ``CheckpointError`` too many names, and names that are no plain relative paths or collide on some filesystem."""
    if len(names) > MAX_FILES:
        raise CheckpointError(f"{len(names):,} files are more than the {MAX_FILES:,} that a manifest may list")
    seen: dict[str, str] = {}
    for name in names:
        if not _is_plain_path(name):
            raise CheckpointError(f"the file name {reprlib.repr(name)} cannot stand in a checkpoint")
        folded = name.lower()
        if folded in seen:
            raise CheckpointError(f"the file names {seen[folded]!r} and {name!r} are one name on some filesystems")
        seen[folded] = name
    for folded, name in seen.items():
        parents = folded.split("/")[:-1]
        if any("/".join(parents[: depth + 1]) in seen for depth in range(len(parents))):
            raise CheckpointError(f"the file name {name!r} needs a directory where there is a file")


def _check_sizes(files: Mapping[str, FileRecord]) -> None:
    total = sum(record.size for record in files.values())
    if total > MAX_TOTAL_SIZE:
        raise CheckpointError(f"files of {total:,} bytes are more than the {MAX_TOTAL_SIZE:,} that a manifest may claim")


def _is_plain_path(name: str) -> bool:
    if len(name) > _MAX_NAME or name.lower() in _MANIFESTS:
        return False
    parts = name.split("/")
    if len(parts) > _MAX_DEPTH or any(part.endswith(".") or _WINDOWS_DEVICES.fullmatch(part) for part in parts):
        return False
    return all(_COMPONENT.fullmatch(part) for part in parts)


def is_sha256(value: Any) -> bool:
    """Whether ``value`` is a SHA-256 as manifests spell it."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def finite_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: floats, and None for what is not finite or was None."""
    numbers = {str(name): None if value is None else float(value) for name, value in metrics.items()}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}


def _natural(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{reprlib.repr(value)} where a count is expected")
    return value


def _finite(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"{reprlib.repr(value)} where a finite number is expected")
    return value


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{reprlib.repr(value)} where texts are expected")
    return value
