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

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.manifest import MAX_TOTAL_SIZE, Manifest, check_file_names
from pitstop.checkpointing.disk.storage import FileRecord
from pitstop.checkpointing.disk.strict_json import parse_json
from pitstop.checkpointing.hub.client import RemoteFile
from pitstop.checkpointing.runs.inventory import (
    BASE_DIRECTORY,
    INVENTORY,
    MAX_BYTES,
    METADATA_KEYS,
    ROOT_ADAPTER,
    RUN_DIRECTORY,
    Entry,
    Inventory,
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
_REMOVE = "if you trust the rest, remove that file from the repository, or ask its owner to, and pull again"


class Unfit(HubError):
    """A repository that is not, in full, what Pitstop writes; ``culprit`` is the file that is wrong."""

    def __init__(self, culprit: str, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{_shown(culprit)}: {problem}; nothing was taken from the repository", hint=hint or _DAMAGED)
        self.culprit = culprit


def _shown(name: str) -> str:
    return name if name.isascii() and name.isprintable() and len(name) < 400 else ascii(name)[:400]


# The tree


def check_tree(files: Mapping[str, RemoteFile]) -> None:
    """Refuse, by names and sizes alone, what no repository of ours holds, whatever its inventory says. ``Unfit``."""
    if len(files) > MAX_FILES:
        raise Unfit(f"{len(files):,} files", f"more than the {MAX_FILES:,} that a repository may have")
    for name in files:
        _refuse_code(name)
    _check_names(files)
    for name, file in files.items():
        if not 0 <= file.size <= MAX_TOTAL_SIZE:
            raise Unfit(name, f"it claims {file.size:,} bytes")
    if sum(file.size for file in files.values()) > MAX_TOTAL_SIZE:
        raise Unfit("all files", f"together they are larger than {MAX_TOTAL_SIZE:,} bytes")
    if INVENTORY not in files:
        raise Unfit(INVENTORY, "it is missing", hint="this is no repository of a Pitstop run: `pitstop push` makes them")
    if files[INVENTORY].size > MAX_BYTES:
        raise Unfit(INVENTORY, f"longer than {MAX_BYTES:,} bytes")


def _refuse_code(name: str) -> None:
    """A pickle or a program is refused wherever it lies: other tools that read the repository would run it."""
    _, dot, ending = name.lower().rpartition("/")[2].rpartition(".")
    if dot and ending.strip() in _CODE:
        raise Unfit(name, f"a .{ending} file can hold a program, and none belongs there", hint=_REMOVE)


def _check_names(files: Collection[str]) -> None:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in files:
        if name == _ATTRIBUTES:
            continue
        if not _is_plain(name):
            raise Unfit(name, "no file of a run has such a name", hint=_REMOVE)
        top, slash, _ = name.partition("/")
        groups[top if slash else ""].append(name)
    _check_collisions([*groups.pop("", []), *groups])
    for names in groups.values():
        _check_collisions(names)


def _is_plain(name: str) -> bool:
    try:
        check_file_names([name])
    except CheckpointError:
        return False
    return True


def _check_collisions(names: Collection[str]) -> None:
    """Refuse names that are one on some filesystem, and files that need a directory where there is a file."""
    try:
        check_file_names(names)
    except CheckpointError as error:
        raise Unfit(_culprit(names), error.message, hint=_REMOVE) from None


def _culprit(names: Collection[str]) -> str:
    """The first name that cannot stand beside one before it; the last one where there are only too many."""
    before: set[str] = set()
    for name in names:
        folded = name.lower()
        if folded in before or any(other.startswith(f"{folded}/") or folded.startswith(f"{other}/") for other in before):
            return name
        before.add(folded)
    return list(names)[-1]


def check_places(files: Mapping[str, RemoteFile], inventory: Inventory) -> None:
    """Refuse what lies where the inventory has nothing, and files of ``run/`` that are not as it lists them. ``Unfit``."""
    for name in files:
        top, slash, _ = name.partition("/")
        if not slash:
            _check_at_root(name)
        elif top not in (RUN_DIRECTORY, *([BASE_DIRECTORY] if inventory.base else []), *inventory.checkpoints):
            raise Unfit(name, f"{INVENTORY} knows of nothing in {_shown(top)}/", hint=_REMOVE)
    missing = sorted({layout.CONFIG, layout.METADATA} - inventory.files.keys())  # a short run has logged nothing yet
    if missing:
        raise Unfit(f"{RUN_DIRECTORY}/{missing[0]}", f"{INVENTORY} does not list it")
    for name, record in inventory.files.items():
        if record.size > MAX_RUN_FILE[name]:
            raise Unfit(f"{RUN_DIRECTORY}/{name}", f"longer than {MAX_RUN_FILE[name]:,} bytes")
    check_listed(files, RUN_DIRECTORY, inventory.files, INVENTORY)


def check_root(files: Iterable[str], form: Form) -> None:
    """At the root of an adapter's repository there are no files of a whole model. ``Unfit``."""
    for name in files:
        if not form.whole and "/" not in name and is_model_file(name):
            raise Unfit(name, "neither a part of a run nor documentation", hint=_REMOVE)


def _check_at_root(name: str) -> None:
    if name in (_ATTRIBUTES, *ROOT_ADAPTER) or is_model_file(name) or _DOCUMENTATION.fullmatch(name):
        return
    raise Unfit(name, "neither a part of a run nor documentation", hint=_REMOVE)


def check_listed(files: Mapping[str, RemoteFile], directory: str, records: Mapping[str, FileRecord], listing: str) -> None:
    """The files in ``directory`` must be those of ``records`` and ``listing`` (a path in the repository), no more, no fewer.

    ``Unfit`` for one that is missing, extra or of another size, or whose hash the Hub itself gives as another.
    """
    there = {name.removeprefix(f"{directory}/"): file for name, file in files.items() if name.startswith(f"{directory}/")}
    there.pop(listing.removeprefix(f"{directory}/"), None)
    if missing := sorted(records.keys() - there.keys()):
        raise Unfit(f"{directory}/{missing[0]}", f"{listing} lists it and it is missing")
    if extra := sorted(there.keys() - records.keys()):
        raise Unfit(f"{directory}/{extra[0]}", f"{listing} does not list it", hint=_REMOVE)
    for name, record in records.items():
        found = there[name]
        if found.size != record.size:
            raise Unfit(f"{directory}/{name}", f"it has {found.size:,} bytes, {listing} says {record.size:,}")
        if found.sha256 not in (None, record.sha256):
            raise Unfit(f"{directory}/{name}", f"its SHA-256 is not the one in {listing}")


# Contents, after their hashes


def check_manifest(manifest: Manifest, entry: Entry, form: Form) -> None:
    """The manifest must be that of the checkpoint that the inventory lists, and list the files of a checkpoint of ``form``. ``Unfit``."""
    where = f"{entry.directory}/{layout.MANIFEST}"
    said = (manifest.name, manifest.step, manifest.epoch, manifest.saved_at.isoformat(), manifest.size)
    wanted = (entry.name, entry.step, entry.epoch, entry.saved_at, entry.size)
    for what, one, other in zip(("name", "step", "epoch", "time", "size"), said, wanted, strict=True):
        if one != other:
            raise Unfit(where, f"its {what} is {one!r:.80}, {INVENTORY} says {other!r:.80}")
    if dict(manifest.metrics) != dict(entry.metrics):
        raise Unfit(where, f"its metrics are not those in {INVENTORY}")
    missing, foreign = form.problems(manifest.files.keys(), manifest.world_size)
    for name in sorted([*missing, *foreign]):
        problem = "is missing from" if name in missing else "is no file of a checkpoint and stands in"
        raise Unfit(f"{entry.directory}/{name}", f"it {problem} {where}")


def parse_config(raw: bytes) -> dict[str, Any]:
    """The settings in ``run/config.json``: known ones of the right types, no secrets. ``Unfit``."""
    where = f"{RUN_DIRECTORY}/{layout.CONFIG}"
    try:
        content = parse_json(raw)
        vetting.check_settings(content, where)
    except (ValueError, CheckpointError) as error:
        raise Unfit(where, str(error).removeprefix(f"{where}: ")) from None
    return dict(content)


def parse_metadata(raw: bytes, inventory: Inventory) -> dict[str, Any]:
    """The part of metadata.json that travels, in ``run/metadata.json``. ``Unfit``."""
    where = f"{RUN_DIRECTORY}/{layout.METADATA}"
    try:
        content = parse_json(raw)
        if not isinstance(content, dict):
            raise ValueError("a JSON object is expected")
        _check_types(content)
        _check_progress(content["progress"])
        if datetime.fromisoformat(content["created_at"]).tzinfo is None:
            raise ValueError("created_at has no offset from UTC")
        if not all(isinstance(resume, dict) for resume in content["resumes"]):
            raise ValueError("resumes holds something that is none")
        if content["name"] != inventory.name or not _NAME.fullmatch(content["name"]):
            raise ValueError(f"{content['name']!r:.100} is not the name of the run in {INVENTORY}, or no name of a run")
    except ValueError as error:
        raise Unfit(where, str(error)) from None
    return content


def _check_types(content: Mapping[str, Any]) -> None:
    if missing := sorted(METADATA_KEYS.keys() - content.keys()):
        raise ValueError(f"{missing[0]} is missing")
    for key, value in content.items():
        if key not in METADATA_KEYS:
            raise ValueError(f"{key!r:.80} has no place there")
        if not isinstance(value, METADATA_KEYS[key]):
            raise ValueError(f"{key} is {value!r:.80}")


def _check_progress(progress: Mapping[str, Any]) -> None:
    for key, value in progress.items():
        if key not in _PROGRESS_KEYS or not (value is None or (type(value) in (int, float) and 0 <= value < 1e15)):
            raise ValueError(f"progress: {key!r:.40} is {value!r:.40}")


def rows_up_to(raw: bytes, step: int) -> bytes:
    """The rows of ``run/metrics.jsonl`` up to ``step``; every row there must be whole and in order. ``Unfit``."""
    lines = list(_rows(raw))
    return b"".join(line + b"\n" for line, at in lines if at <= step)


def _rows(raw: bytes) -> Iterator[tuple[bytes, int]]:
    where, before = f"{RUN_DIRECTORY}/{layout.METRICS}", 0
    lines = raw.split(b"\n")
    if lines.pop():
        raise Unfit(where, "its last line is not whole")
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise Unfit(where, f"line {number}: {error}") from None
        step = row.get("step") if isinstance(row, dict) else None
        if type(step) is not int or step < before:
            raise Unfit(where, f"line {number}: no row of a step after {before}")
        before = step
        yield line, step
