"""A power cut at any moment, on a disk that forgets everything it was not told to keep; and protocols that must fail it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing import layout
from pitstop.checkpointing.store import CheckpointStore
from support.disk_model import Recorder
from support.stores import ForgetfulStorage, save

pytestmark = pytest.mark.faults

KEEP = 2
IMAGES = 400


def record(root: Path, make: Callable[[Recorder], CheckpointStore]) -> Recorder:
    """Five saves with pointers and retention, every operation on record."""
    root.mkdir()
    recorder = Recorder(root)
    store = make(recorder)
    for step in range(1, 6):
        name = save(store, step, loss=1 / step).name
        recorder.acknowledge(step)
        store.set_pointer("last", name)
        store.set_pointer("best", name)
        store.prune(KEEP)
    return recorder


def broken_promise(recorder: Recorder, count: int, seed: int, image: Path) -> str | None:
    """What one image of a power cut breaks of the promises; None when they hold."""
    recorder.image(count, random.Random(seed), image)
    try:
        store = CheckpointStore(image, ForgetfulStorage())
        damaged = [entry.name for entry in store.verify_all() if entry.problem is not None]
        if damaged:
            return f"{damaged} have their final names and are damaged"
        acknowledged = recorder.last_acknowledged(count)
        report = store.recover(deep=True)
        step = report.valid.step if report.valid else 0
        if step not in (acknowledged, acknowledged + 1):
            return f"step {acknowledged} was acknowledged, {step} recovered"
        if len(store.list()) < min(KEEP, acknowledged):
            return f"only {len(store.list())} checkpoints are left"
        if store.pointer("last") != (f"checkpoint-{step}" if step else None):
            return f"last points at {store.pointer('last')}"
        return None
    finally:
        shutil.rmtree(image)


def first_broken(recorder: Recorder, scratch: Path, images: int) -> str | None:
    rng = random.Random(20260101)
    for number in range(images):
        # Every moment comes up again and again; the first pass takes each in turn.
        count = number % (recorder.count + 1) if number <= recorder.count else rng.randrange(recorder.count + 1)
        problem = broken_promise(recorder, count, number, scratch / "image")
        if problem is not None:
            return f"after operation {count}: {problem}"
    return None


def test_no_power_cut_costs_an_acknowledged_checkpoint(tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", lambda recorder: CheckpointStore(recorder.root, recorder.storage))
    assert recorder.count > 100
    assert first_broken(recorder, tmp_path, IMAGES) is None


class WithoutTheParentSync(CheckpointStore):
    def _commit(self, temporary: Path, final: Path) -> None:
        self._storage.rename(temporary, final)


class PurgesBeforeCommitting(CheckpointStore):
    def write(self, *arguments: Any, **named: Any) -> Any:
        self.prune(1)
        for info in self.list():
            self._remove(info.path)
        return super().write(*arguments, **named)


class DeletesInPlace(CheckpointStore):
    def _remove(self, path: Path) -> bool:
        self._storage.remove_tree(path)
        return True


class DeletesBeforeTheTrashIsDurable(CheckpointStore):
    def _to_trash(self, path: Path) -> Path:
        trash = self.directory / f".trash-{path.name}"
        self._storage.rename(path, trash)
        return trash


class WritesUnderTheFinalName(CheckpointStore):
    def _write_files(self, temporary: Path, files: Any) -> Any:
        self._final = temporary.with_name(temporary.name.removeprefix(".tmp-").rpartition("-")[0])
        records = super()._write_files(self._final, files)
        self._storage.make_directory(temporary)
        return records

    def _commit(self, temporary: Path, final: Path) -> None:
        self._storage.rename(temporary / layout.MANIFEST, self._final / layout.MANIFEST)
        self._storage.sync_directory(self._final)
        self._storage.remove_directory(temporary)
        self._storage.sync_directory(self.directory)


def mutated(storage_method: str) -> Callable[[Recorder], CheckpointStore]:
    """A store whose storage leaves one kind of operation out."""

    def make(recorder: Recorder) -> CheckpointStore:
        setattr(recorder.storage, storage_method, lambda *arguments: None)
        return CheckpointStore(recorder.root, recorder.storage)

    return make


def subclass(kind: type[CheckpointStore]) -> Callable[[Recorder], CheckpointStore]:
    return lambda recorder: kind(recorder.root, recorder.storage)


def without_temporary_sync(recorder: Recorder) -> CheckpointStore:
    real = recorder.storage.sync_directory
    recorder.storage.sync_directory = lambda path: None if path.name.startswith(".tmp-") else real(path)  # type: ignore[method-assign]
    return CheckpointStore(recorder.root, recorder.storage)


def without_manifest_sync(recorder: Recorder) -> CheckpointStore:
    """The manifest is the last file written before each rename: leave out every sync that follows a manifest's write."""
    store = CheckpointStore(recorder.root, recorder.storage)
    real_write, real_sync = recorder.storage.write_file, recorder.storage.sync_file

    def write_file(path: Path, content: Any) -> Any:
        recorder.storage.sync_file = (lambda descriptor: None) if path.name == layout.MANIFEST else real_sync  # type: ignore[method-assign]
        return real_write(path, content)

    recorder.storage.write_file = write_file  # type: ignore[method-assign]
    return store


MUTANTS = {
    "no file is synced": mutated("sync_file"),
    "no directory is synced": mutated("sync_directory"),
    "the temporary directory is not synced": without_temporary_sync,
    "the manifest is not synced": without_manifest_sync,
    "the parent is not synced after the rename": subclass(WithoutTheParentSync),
    "older ones are purged before the commit": subclass(PurgesBeforeCommitting),
    "retention deletes in place": subclass(DeletesInPlace),
    "retention deletes before the trash is durable": subclass(DeletesBeforeTheTrashIsDurable),
    "files are written under the final name": subclass(WritesUnderTheFinalName),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_protocol_is_caught(mutant: str, tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", MUTANTS[mutant])
    assert first_broken(recorder, tmp_path, 2 * IMAGES) is not None
