"""Hashing everything again, of one run or of all: reads only, takes no lock, and disturbs no training that is going on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pitstop.checkpointing.disk import inspection, layout, storage
from pitstop.checkpointing.disk.manifest import NewerFormatError
from pitstop.checkpointing.runs.base_models import BASE_MANIFEST, LINKED, REFERENCE, BaseModels, read_base_manifest
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.metadata import CREATED, FORMAT_VERSION
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import CheckpointStore
from pitstop.configs.errors import CheckpointError

OK, DAMAGED, NEWER = "ok", "damaged", "newer"

_REMADE = "the next `pitstop resume` or `train` that needs it makes it again from its source"


@dataclass(frozen=True)
class Part:
    """One thing that was checked: ``name`` of ``run`` (empty: shared by all), ``size`` in bytes, None where it is unknown."""

    run: str
    name: str
    path: Path
    state: str
    size: int | None
    problem: str | None = None


class Verifier:
    """Checks runs and base models; a file that several of them share is hashed once. ``tell`` is told what is hashed next."""

    def __init__(self, tell: Callable[[str], None] = lambda name: None) -> None:
        self._tell = tell
        self._hashes: dict[tuple[int, int], str] = {}

    def all(self, base_dir: Path) -> Iterator[Part]:
        """Every run below ``base_dir`` and every shared base model."""
        for record in list_runs(base_dir):
            yield from self.run(RunDirectory(Path(record.path)))
        models = BaseModels(base_dir)
        for digest in models.digests():
            yield from self._base("", f"{layout.BASE_MODELS}/{digest}", models.path(digest))

    def run(self, run: RunDirectory) -> Iterator[Part]:
        """The checkpoints of ``run``, its base model, and whether its JSON files can be read."""
        for part in (_json_part(run, layout.CONFIG, run.config), _json_part(run, layout.METADATA, lambda: _check_version(run))):
            if run.path.is_dir():  # else it was deleted meanwhile, which is no damage
                yield part
        for name in CheckpointStore(layout.weights_directory(run.path)).names():
            yield from self.checkpoint(run, name)
        yield from self._base_of(run)

    def checkpoint(self, run: RunDirectory, name: str) -> Iterator[Part]:
        """The checkpoint with the directory name ``name``; nothing when retention moves it away meanwhile."""
        path = layout.weights_directory(run.path) / name
        self._tell(f"{run.label} {name}")
        try:
            info = inspection.verify(path, self._hash)
        except CheckpointError as error:
            if os.path.lexists(path):
                yield _bad(run.label, name, path, error)
            return
        yield Part(run.label, name, path, OK, info.size)

    def _base_of(self, run: RunDirectory) -> Iterator[Part]:
        models, metadata = BaseModels(run.base_dir), run.readable_metadata()
        linked, reference = run.path / LINKED, run.path / REFERENCE
        if os.path.lexists(linked):
            yield from self._base(run.label, LINKED, linked)
        elif os.path.lexists(reference):
            yield from self._referred(run, models, reference)
        elif run.path.is_dir() and metadata.status != CREATED and metadata.base_model.saved is True:
            # Before its first step a run may not have got its links yet.
            yield Part(run.label, LINKED, linked, DAMAGED, None, f"{linked} is missing; {_REMADE}")

    def _referred(self, run: RunDirectory, models: BaseModels, reference: Path) -> Iterator[Part]:
        try:
            location = models.base_location(run.path)
        except CheckpointError as error:
            if os.path.lexists(reference):
                yield _bad(run.label, REFERENCE, reference, error)
            return
        yield from self._base(run.label, REFERENCE, location, entry=reference)

    def _base(self, label: str, name: str, path: Path, entry: Path | None = None) -> Iterator[Part]:
        self._tell(f"{label} {name}".strip())
        try:
            size, problems = self._look_at_base(path)
        except NewerFormatError as error:
            yield _bad(label, name, path, error)
            return
        except CheckpointError as error:
            size, problems = None, [error.message]
        if not problems:
            yield Part(label, name, path, OK, size)
        elif os.path.lexists(entry or path):
            yield Part(label, name, path, DAMAGED, None, f"{path} is damaged: {inspection.summary(problems)}; {_REMADE}")

    def _look_at_base(self, path: Path) -> tuple[int, list[str]]:
        if not inspection.is_real_directory(path):
            return 0, ["there is no such directory"]
        _, files = read_base_manifest(path)
        problems = inspection.content_problems(path, files, BASE_MANIFEST, self._hash)
        return sum(record.size for record in files.values()), problems

    def _hash(self, path: Path) -> str:
        status = path.lstat()
        key = (status.st_dev, status.st_ino)
        # A file with one name is met once; keeping its inode's hash would only invite a later file with the same inode.
        if status.st_nlink == 1 or key not in self._hashes:
            self._hashes[key] = storage.file_sha256(path)
        return self._hashes[key]


def notes(run: RunDirectory) -> list[str]:
    """What is not as it should be and costs nothing: pointers and lists that the next ``resume`` puts right."""
    if run.is_locked():
        return []  # its training moves them all the time
    metadata = run.readable_metadata()
    try:
        targets = run.store.expected_pointers(run.store.list())
    except CheckpointError:
        return []  # told as a part
    texts = [_pointer_note(run, which, name) for which, name in targets.items()]
    names = [str(checkpoint.name) for checkpoint in metadata.checkpoints]
    present = set(run.store.names())
    texts += [f"metadata.json lists {name}, which is not there" for name in names if name not in present]
    return [f"{run.label}: {text}; the next `pitstop resume` repairs that" for text in texts if text]


def _pointer_note(run: RunDirectory, which: str, target: str | None) -> str | None:
    path = run.store.directory / which
    pointed = run.store.pointer(which)
    if pointed == target and (pointed is not None or not os.path.lexists(path)):
        return None
    leads = f"points at {pointed}" if pointed else "points nowhere" if os.path.lexists(path) else "is missing"
    return f"{which} {leads}" + (f", should point at {target}" if target else "")


def _json_part(run: RunDirectory, name: str, read: Callable[[], object]) -> Part:
    path = run.path / name
    try:
        read()
        return Part(run.label, name, path, OK, path.stat().st_size)
    except FileNotFoundError:
        return Part(run.label, name, path, DAMAGED, None, f"{path} is missing")
    except CheckpointError as error:
        return _bad(run.label, name, path, error)


def _check_version(run: RunDirectory) -> None:
    version = run.metadata().format_version
    if version is not None and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{run.path / layout.METADATA}: in format {version}; this pitstop reads formats up to {FORMAT_VERSION}",
            hint="upgrade: pip install --upgrade pitstop",
        )


def _bad(label: str, name: str, path: Path, error: CheckpointError) -> Part:
    if isinstance(error, NewerFormatError):
        return Part(label, name, path, NEWER, None, f"written by a newer pitstop: {error.with_hint}")
    return Part(label, name, path, DAMAGED, None, error.with_hint)
