"""A power cut at any moment, on a disk that forgets everything it was not told to keep; and protocols that must fail it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing import layout
from pitstop.checkpointing.runs import RunDirectory, create_run, find_run
from pitstop.checkpointing.store import CheckpointStore
from support.disk_model import Recorder
from support.stores import FILES, ForgetfulStorage, save

pytestmark = pytest.mark.faults

IMAGES = 300


def record(root: Path, make: Callable[[Recorder], CheckpointStore], keep: int) -> Recorder:
    """Five saves with pointers and retention, every operation on record."""
    root.mkdir()
    recorder = Recorder(root)
    store = make(recorder)
    for step in range(1, 6):
        name = save(store, step, loss=1 / step, files={**FILES, "templates/chat.jinja": b"{}"}).name
        recorder.acknowledge(step)
        store.set_pointer("last", name)
        store.set_pointer("best", name)
        store.prune(keep)
    return recorder


def broken_promise(recorder: Recorder, keep: int, count: int, seed: int, image: Path) -> str | None:
    """What one image of a power cut breaks of the promises; None when they hold."""
    recorder.image(count, random.Random(seed), image)
    try:
        store = CheckpointStore(image, ForgetfulStorage())
        damaged = [entry.name for entry in store.verify_all() if entry.problem is not None]
        if damaged:
            return f"{damaged} have their final names and are damaged"
        acknowledged = recorder.last_acknowledged(count)
        dangling = [which for which in layout.POINTERS if acknowledged > 1 and store.pointer(which) not in store.names()]
        if dangling:
            return f"{dangling} point nowhere, and other tools do not repair them"
        report = store.recover(deep=True)
        step = report.valid.step if report.valid else 0
        if step not in (acknowledged, acknowledged + 1):
            return f"step {acknowledged} was acknowledged, {step} recovered"
        if len(store.list()) < min(keep, acknowledged):
            return f"only {len(store.list())} checkpoints are left"
        if store.pointer("last") != (f"checkpoint-{step}" if step else None):
            return f"last points at {store.pointer('last')}"
        return None
    finally:
        shutil.rmtree(image)


def first_broken(recorder: Recorder, keep: int, scratch: Path, images: int) -> str | None:
    rng = random.Random(20260101)
    for number in range(images):
        # Every moment comes up again and again; the first pass takes each in turn.
        count = number % (recorder.count + 1) if number <= recorder.count else rng.randrange(recorder.count + 1)
        problem = broken_promise(recorder, keep, count, number, scratch / "image")
        if problem is not None:
            return f"after operation {count}: {problem}"
    return None


@pytest.mark.parametrize("keep", [1, 2])
def test_no_power_cut_costs_an_acknowledged_checkpoint(keep: int, tmp_path: Path) -> None:
    recorder = record(tmp_path / "run", lambda recorder: CheckpointStore(recorder.root, recorder.storage), keep)
    assert recorder.count > 100
    assert first_broken(recorder, keep, tmp_path, IMAGES) is None


def images(recorder: Recorder, scratch: Path, number: int) -> Iterator[tuple[int, Path]]:
    """``number`` images at random moments, the end (all is acknowledged) as often as any other; each with its moment."""
    rng = random.Random(5)
    for seed in range(number):
        count = recorder.count if seed % 3 == 0 else rng.randrange(recorder.count + 1)
        recorder.image(count, random.Random(seed), scratch / "image")
        yield count, scratch / "image"
        shutil.rmtree(scratch / "image")


def test_a_power_cut_after_a_run_was_made_finds_all_of_it(tmp_path: Path) -> None:
    root = tmp_path / "base"
    root.mkdir()
    recorder = Recorder(root)
    create_run(root, name="a-run", config={"a": 1}, metadata={}, storage=recorder.storage)
    for count, image in images(recorder, tmp_path, 150):
        if count == recorder.count:
            run = find_run(image, 1)
            assert run.config() == {"a": 1}
            assert run.metadata()["name"] == "a-run"
            assert (image / "by-name" / "a-run").readlink() == Path("../run_001")


def test_a_power_cut_finds_the_metadata_of_before_or_after_an_update(tmp_path: Path) -> None:
    root = tmp_path / "base"
    root.mkdir()
    recorder = Recorder(root)
    run = create_run(root, name="a-run", config={}, metadata={}, storage=recorder.storage)
    made = recorder.count
    run.update_metadata({"status": "running"})
    updated = recorder.count
    run.update_metadata({"status": "completed"})
    for count, image in images(recorder, tmp_path, 300):
        if count >= made:
            status = RunDirectory(image / "run_001").metadata()["status"]
            assert status in ({"created", "running"} if count < updated else {"running", "completed"})
            assert count < recorder.count or status == "completed"


def test_a_power_cut_while_checkpoints_are_set_aside_loses_none(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    recorder = Recorder(root)
    store = CheckpointStore(root, recorder.storage)
    for step in (1, 2, 3):
        save(store, step)
    saved = recorder.count
    store.supersede(1)
    for count, image in images(recorder, tmp_path, 300):
        if count >= saved:
            found = CheckpointStore(image)
            aside = CheckpointStore(image / layout.SUPERSEDED)
            assert not [entry for entry in [*found.verify_all(), *aside.verify_all()] if entry.problem is not None]
            assert [info.step for info in [*found.list(), *aside.list()]] == [1, 2, 3]
            assert count < recorder.count or len(aside.list()) == 2


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


def without_pointer_sync(recorder: Recorder) -> CheckpointStore:
    """Leave out the sync of the directory that follows each replacement of a pointer."""
    storage = recorder.storage
    real_replace, real_sync = storage.replace, storage.sync_directory
    pending: list[Path] = []

    def replace(source: Path, target: Path) -> None:
        real_replace(source, target)
        pending.append(target.parent)

    def sync_directory(path: Path) -> None:
        if pending:
            pending.clear()
        else:
            real_sync(path)

    storage.replace, storage.sync_directory = replace, sync_directory  # type: ignore[method-assign]
    return CheckpointStore(recorder.root, storage)


def removing_pointers_first(recorder: Recorder) -> CheckpointStore:
    storage = recorder.storage
    real_replace = storage.replace

    def replace(source: Path, target: Path) -> None:
        if os.path.lexists(target):
            storage.unlink(target)
        real_replace(source, target)

    storage.replace = replace  # type: ignore[method-assign]
    return CheckpointStore(recorder.root, storage)


def without_subdirectory_sync(recorder: Recorder) -> CheckpointStore:
    real = recorder.storage.sync_directory
    recorder.storage.sync_directory = lambda path: None if path.name == "templates" else real(path)  # type: ignore[method-assign]
    return CheckpointStore(recorder.root, recorder.storage)


MUTANTS = {
    "a pointer is not synced": without_pointer_sync,
    "a pointer is removed before it is replaced": removing_pointers_first,
    "a directory inside is not synced": without_subdirectory_sync,
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
    problems = []
    for keep in (1, 2):
        recorder = record(tmp_path / f"keep-{keep}", MUTANTS[mutant], keep)
        problems.append(first_broken(recorder, keep, tmp_path, IMAGES))
    assert any(problems)
