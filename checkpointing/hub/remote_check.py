"""Whether a repository holds what a run of ours would have put there, told by names and sizes before anything is fetched.

Anybody can write a repository. So what is taken from it is listed, and what is not on the list is a reason to take nothing: the
message names the file. Nothing here reads a file of the repository but JSON that was hashed before.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from pitstop.checkpointing.disk import layout, strict_json
from pitstop.checkpointing.disk.manifest import MAX_TOTAL_SIZE, Manifest, check_file_names
from pitstop.checkpointing.disk.storage import FileRecord
from pitstop.checkpointing.hub.client import RemoteFile
from pitstop.checkpointing.runs.inventory import (
    BASE_DIRECTORY,
    INVENTORY,
    MAX_BYTES,
    METADATA_KEYS,
    ROOT_ADAPTER,
    RUN_DIRECTORY,
    Inventory,
    RemoteCheckpoint,
)
from pitstop.checkpointing.store import vetting
from pitstop.checkpointing.store.file_sets import Form, is_model_file
from pitstop.configs.errors import CheckpointError, HubError

MAX_FILES = 100_000
"""Files that a repository may have, all its checkpoints together."""

MAX_RUN_FILE = {layout.CONFIG: MAX_BYTES, layout.METADATA: MAX_BYTES, layout.METRICS: 1024**3}
"""Bytes that each file of ``run/`` may have."""

_CODE = {
    "bin", "bz2", "ckpt", "cpickle", "dill", "gz", "joblib", "npy", "npz", "pickle", "pkl", "pt", "pth", "tar", "zip",
    "bat", "cmd", "com", "dll", "dylib", "egg", "exe", "ipynb", "jar", "js", "pl", "ps1", "py", "pyc", "pyd", "pyx", "rb",
    "sh", "so", "vbs", "whl",
}  # fmt: skip
_DOCUMENTATION = re.compile(r"(?:LICENSE|NOTICE)[A-Za-z0-9_.-]*|.+\.(?:md|png|jpg|jpeg|svg|txt)", re.IGNORECASE)
_ATTRIBUTES = ".gitattributes"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")

_PROGRESS_KEYS = {"step", "total_steps", "epoch", "total_epochs"}
_DAMAGED = "it was damaged or changed after the push: push the run again, or pull another checkpoint of it with --checkpoint"
_OUT_OF_PLACE = "neither a part of a run nor documentation"
_REMOVE = "if you trust the rest, remove that file from the repository, or ask its owner to, and pull again"


class InvalidRepository(HubError):
    """A repository that is not, in full, what Pitstop writes; ``culprit`` is the file that is wrong."""

    def __init__(self, culprit: str, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{_shown(culprit)}: {problem}; nothing was taken from the repository", hint=hint or _DAMAGED)
        self.culprit = culprit


def _shown(name: str) -> str:
    return name if name.isascii() and name.isprintable() and len(name) < 400 else ascii(name)[:400]


def check_tree(files: Mapping[str, RemoteFile]) -> None:
    """Refuse, by names and sizes alone, what no repository of ours holds, whatever its inventory says. ``InvalidRepository``."""
    if len(files) > MAX_FILES:
        raise InvalidRepository(f"{len(files):,} files", f"more than the {MAX_FILES:,} that a repository may have")
    for name in files:
        # A pickle or a program is refused wherever it lies: other tools that read the repository would run it.
        _, dot, ending = name.lower().rpartition("/")[2].rpartition(".")
        if dot and ending.strip() in _CODE:
            raise InvalidRepository(name, f"a .{ending} file can hold a program, and none belongs there", hint=_REMOVE)
    _check_names(files)
    for name, file in files.items():
        if not 0 <= file.size <= MAX_TOTAL_SIZE:
            raise InvalidRepository(name, f"it claims {file.size:,} bytes")
    if sum(file.size for file in files.values()) > MAX_TOTAL_SIZE:
        raise InvalidRepository("all files", f"together they are larger than {MAX_TOTAL_SIZE:,} bytes")
    if INVENTORY not in files:
        raise InvalidRepository(
            INVENTORY, "it is missing", hint="this is not the repository of a Pitstop run: `pitstop push` makes them"
        )
    if files[INVENTORY].size > MAX_BYTES:
        raise InvalidRepository(INVENTORY, f"longer than {MAX_BYTES:,} bytes")


def _check_names(files: Collection[str]) -> None:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in files:
        if name == _ATTRIBUTES:
            continue
        try:
            check_file_names([name])
        except CheckpointError:
            raise InvalidRepository(name, "no file of a run has such a name", hint=_REMOVE) from None
        top, slash, _ = name.partition("/")
        groups[top if slash else ""].append(name)
    _check_collisions([*groups.pop("", []), *groups])
    for names in groups.values():
        _check_collisions(names)


def _check_collisions(names: Collection[str]) -> None:
    """Refuse names that are one on some filesystem, and files that need a directory where there is a file."""
    try:
        check_file_names(names)
    except CheckpointError as error:
        raise InvalidRepository(_culprit(names), error.message, hint=_REMOVE) from None


def _culprit(names: Collection[str]) -> str:
    """The first name that cannot stand beside one before it; the last one where there are only too many."""
    earlier: set[str] = set()
    for name in names:
        folded = name.lower()
        if folded in earlier or any(path.startswith(f"{folded}/") or folded.startswith(f"{path}/") for path in earlier):
            return name
        earlier.add(folded)
    return list(names)[-1]


def check_places(files: Mapping[str, RemoteFile], inventory: Inventory) -> None:
    """Refuse what lies where the inventory has nothing, and files of ``run/`` that are not as it lists them. ``InvalidRepository``."""
    for name in files:
        top, slash, _ = name.partition("/")
        if not slash:
            if name not in (_ATTRIBUTES, *ROOT_ADAPTER) and not is_model_file(name) and not _DOCUMENTATION.fullmatch(name):
                raise InvalidRepository(name, _OUT_OF_PLACE, hint=_REMOVE)
        elif top not in (RUN_DIRECTORY, *([BASE_DIRECTORY] if inventory.base else []), *inventory.checkpoints):
            raise InvalidRepository(name, f"{INVENTORY} knows of nothing in {_shown(top)}/", hint=_REMOVE)
    missing = sorted({layout.CONFIG, layout.METADATA} - inventory.files.keys())  # a short run has logged nothing yet
    if missing:
        raise InvalidRepository(f"{RUN_DIRECTORY}/{missing[0]}", f"{INVENTORY} does not list it")
    for name, record in inventory.files.items():
        if record.size > MAX_RUN_FILE[name]:
            raise InvalidRepository(f"{RUN_DIRECTORY}/{name}", f"longer than {MAX_RUN_FILE[name]:,} bytes")
    check_listed(files, RUN_DIRECTORY, inventory.files, INVENTORY)


def check_root(files: Iterable[str], form: Form) -> None:
    """At the root of an adapter's repository there are no files of a whole model. ``InvalidRepository``."""
    for name in files:
        if not form.full_model and "/" not in name and is_model_file(name):
            raise InvalidRepository(name, _OUT_OF_PLACE, hint=_REMOVE)


def check_listed(files: Mapping[str, RemoteFile], directory: str, records: Mapping[str, FileRecord], listing: str) -> None:
    """The files in ``directory`` must be those of ``records`` and ``listing`` (a path in the repository), no more, no fewer.

    ``InvalidRepository`` for one that is missing, extra or of another size, or whose hash the Hub itself gives as another.
    """
    remote = {name.removeprefix(f"{directory}/"): file for name, file in files.items() if name.startswith(f"{directory}/")}
    remote.pop(listing.removeprefix(f"{directory}/"), None)
    if missing := sorted(records.keys() - remote.keys()):
        raise InvalidRepository(f"{directory}/{missing[0]}", f"{listing} lists it and it is missing")
    if extra := sorted(remote.keys() - records.keys()):
        raise InvalidRepository(f"{directory}/{extra[0]}", f"{listing} does not list it", hint=_REMOVE)
    for name, record in records.items():
        file = remote[name]
        if file.size != record.size:
            raise InvalidRepository(f"{directory}/{name}", f"it has {file.size:,} bytes, {listing} says {record.size:,}")
        if file.sha256 not in (None, record.sha256):
            raise InvalidRepository(f"{directory}/{name}", f"its SHA-256 is not the one in {listing}")


def check_manifest(manifest: Manifest, entry: RemoteCheckpoint, form: Form) -> None:
    """The manifest must be that of the checkpoint that the inventory lists, and list the files of a checkpoint of ``form``. ``InvalidRepository``."""
    path = f"{entry.directory}/{layout.MANIFEST}"
    recorded = (manifest.name, manifest.step, manifest.epoch, manifest.saved_at.isoformat(), manifest.size)
    listed = (entry.name, entry.step, entry.epoch, entry.saved_at, entry.size)
    for field, value, expected in zip(("name", "step", "epoch", "time", "size"), recorded, listed, strict=True):
        if value != expected:
            raise InvalidRepository(path, f"its {field} is {value!r:.80}, {INVENTORY} says {expected!r:.80}")
    if dict(manifest.metrics) != dict(entry.metrics):
        raise InvalidRepository(path, f"its metrics are not those in {INVENTORY}")
    missing, foreign = form.problems(manifest.files.keys(), manifest.world_size)
    for name in sorted([*missing, *foreign]):
        problem = "is missing from" if name in missing else "is no file of a checkpoint and stands in"
        raise InvalidRepository(f"{entry.directory}/{name}", f"it {problem} {path}")


def parse_config(raw: bytes) -> dict[str, Any]:
    """The settings in ``run/config.json``: known ones of the right types, no secrets. ``InvalidRepository``."""
    path = f"{RUN_DIRECTORY}/{layout.CONFIG}"
    try:
        content = strict_json.parse_json(raw)
        vetting.check_settings(content, path)
    except (ValueError, CheckpointError) as error:
        raise InvalidRepository(path, str(error).removeprefix(f"{path}: ")) from None
    return dict(content)


def parse_metadata(raw: bytes, inventory: Inventory) -> dict[str, Any]:
    """The part of metadata.json that travels, in ``run/metadata.json``. ``InvalidRepository``."""
    path = f"{RUN_DIRECTORY}/{layout.METADATA}"
    try:
        content = strict_json.parse_json(raw)
        if not isinstance(content, dict):
            raise ValueError("a JSON object is expected")
        _check_types(content)
        for key, value in content["progress"].items():
            if key not in _PROGRESS_KEYS or not (value is None or (type(value) in (int, float) and 0 <= value < 1e15)):
                raise ValueError(f"progress: {key!r:.40} is {value!r:.40}")
        if datetime.fromisoformat(content["created_at"]).tzinfo is None:
            raise ValueError("created_at has no offset from UTC")
        if not all(isinstance(resume, dict) for resume in content["resumes"]):
            raise ValueError("resumes holds something that is not a JSON object")
        if content["name"] != inventory.name or not _NAME.fullmatch(content["name"]):
            raise ValueError(f"{content['name']!r:.100} is not the name of the run in {INVENTORY}, or no name of a run")
    except ValueError as error:
        raise InvalidRepository(path, str(error)) from None
    return content


def _check_types(content: Mapping[str, Any]) -> None:
    if missing := sorted(METADATA_KEYS.keys() - content.keys()):
        raise ValueError(f"{missing[0]} is missing")
    for key, value in content.items():
        if key not in METADATA_KEYS:
            raise ValueError(f"{key!r:.80} has no place there")
        if not isinstance(value, METADATA_KEYS[key]):
            raise ValueError(f"{key} is {value!r:.80}")


def rows_up_to(raw: bytes, step: int) -> bytes:
    """The rows of ``run/metrics.jsonl`` up to ``step``; every row there must be whole and in order. ``InvalidRepository``."""
    lines = list(_rows(raw))
    return b"".join(line + b"\n" for line, logged in lines if logged <= step)


def _rows(raw: bytes) -> Iterator[tuple[bytes, int]]:
    path, last_step = f"{RUN_DIRECTORY}/{layout.METRICS}", 0
    lines = raw.split(b"\n")
    if lines.pop():
        raise InvalidRepository(path, "its last line is not whole")
    for number, line in enumerate(lines, 1):
        try:
            row = strict_json.parse_json(line)
        except ValueError as error:
            raise InvalidRepository(path, f"line {number}: {error}") from None
        step = row.get("step") if isinstance(row, dict) else None
        if type(step) is not int or step < last_step:
            raise InvalidRepository(path, f"line {number}: no row of a step after {last_step}")
        last_step = step
        yield line, step
