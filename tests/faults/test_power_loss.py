"""A power cut at any moment, on a disk that forgets everything it was not told to keep; and protocols that must fail it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import MetricsLog, read_rows
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import CheckpointStore
from pitstop.configs.errors import CheckpointError, ResourceError
from support.disk_model import Recorder
from support.fault_matrix import Matrix, Row
from support.stores import FILES, ForgetfulStorage, save
from support.training import broken_run

pytestmark = pytest.mark.faults

ROW = "power loss: unsynced writes dropped, reordered, torn"
PARTS = 20  # of the images: how the tests of this row, the ones of real training included, share them
LOSSES = {1: 0.5, 2: 0.2, 3: 0.4, 4: 0.3, 5: 0.1}
MUTANT_IMAGES = 300


@dataclass
class Workload:
    """A run that saves as training does, every operation on record. Mutants override a part of it."""

    recorder: Recorder
    run: RunDirectory
    log: MetricsLog
    keep: int

    def store(self) -> CheckpointStore:
        return CheckpointStore(layout.weights_directory(self.run.path), self.recorder.storage)

    def sync_log(self) -> None:
        self.log.sync()

    def commit(self, step: int) -> None:
        files = {**FILES, "templates/chat.jinja": b"{}"}
        save(self.run.store, step, loss=LOSSES[step], files=files)

    def acknowledge(self, step: int) -> None:
        self.recorder.acknowledge(step)

    def tidy(self, step: int) -> None:
        self.run.store.repair_pointers()
        self.run.store.prune(self.keep)
        self.run.sync_checkpoints()

    def save(self, step: int) -> None:
        self.sync_log()
        self.commit(step)
        self.acknowledge(step)
        self.tidy(step)

    def save_again(self, step: int) -> None:
        """A name that is taken: refused, whatever is in it."""
        if (self.run.store.directory / layout.step_name(step)).exists():
            with contextlib.suppress(CheckpointError):
                save(self.run.store, step, files={"state.json": b"other"})


def record(root: Path, keep: int, workload: type[Workload] = Workload, fail_sync: int | None = None) -> Recorder:
    """Five saves with their rows of metrics, pointers, retention and metadata; ``made`` is when the run was there."""
    root.mkdir()
    recorder = Recorder(root)
    run = create_run(root, name="a-run", config={}, metadata={}, storage=recorder.storage)
    recorder.made = recorder.count
    recorder.fail_sync = None if fail_sync is None else recorder.syncs + fail_sync
    work = workload(recorder, run, MetricsLog(run.metrics_path, recorder.storage), keep)
    run.__dict__["store"] = work.store()
    for step in LOSSES:
        with contextlib.suppress(*([ResourceError, OSError] if fail_sync is not None else [])):
            work.log.append({"step": step, "loss": LOSSES[step]})
            work.save(step)
    work.save_again(max(LOSSES))
    return recorder


def broken_promise(recorder: Recorder, keep: int, count: int, seed: int, image: Path) -> str | None:
    """What one image of a power cut breaks of the promises; None when they hold."""
    recorder.image(count, random.Random(seed), image)
    try:
        if count < recorder.made:
            return None
        acknowledged = recorder.acknowledged_steps(count)
        best = min(acknowledged, key=LOSSES.__getitem__, default=None)
        # The next one, and where a sync failed the one after that, too: the next save that is told of may be under way.
        later = [step for at, step in recorder.acknowledged if at > count]
        under_way = {max(acknowledged, default=0) + 1, *later[:1]}
        # A pointer whose sync failed is a hint that may be old; the checkpoints are what was promised.
        return broken_run(image / "run_001", acknowledged, under_way, keep, best, pointers=recorder.fail_sync is None)
    finally:
        shutil.rmtree(image)


def moments(recorder: Recorder, images: int) -> Iterator[int]:
    """Every moment comes up again and again; the first pass takes each in turn."""
    rng = random.Random(20260101)
    span = recorder.count + 1 - recorder.made
    for number in range(images):
        yield recorder.made + (number if number < span else rng.randrange(span))


def first_broken(recorder: Recorder, keep: int, scratch: Path, images: int) -> str | None:
    for number, count in enumerate(moments(recorder, images)):
        problem = broken_promise(recorder, keep, count, number, scratch / "image")
        if problem is not None:
            return f"after operation {count}: {problem}"
    return None


def share(row: Row, parts: int) -> int:
    return max(1, row.count * parts // PARTS)


@pytest.mark.parametrize("keep", [1, 2])
def test_no_power_cut_costs_an_acknowledged_checkpoint(keep: int, tmp_path: Path, matrix: Matrix) -> None:
    row = matrix(ROW)
    recorder = record(tmp_path / "base", keep)
    assert recorder.count > 200
    for number, count in enumerate(moments(recorder, share(row, 5))):
        with row.trial(f"after operation {count}, seed {number}, keep {keep}"):
            assert broken_promise(recorder, keep, count, number, tmp_path / "image") is None


def after_a_failed_sync(recorder: Recorder, images: int, scratch: Path, first_seed: int = 0) -> Iterator[tuple[int, str | None]]:
    """The moments of ``images`` cuts, most of them after all was acknowledged, with what each breaks."""
    rng = random.Random(first_seed)
    for seed in range(first_seed, first_seed + images):
        count = recorder.count if seed % 4 else rng.randrange(recorder.made, recorder.count + 1)
        yield count, broken_promise(recorder, 1, count, seed, scratch / "image")


def test_a_sync_that_failed_is_never_relied_on_again(tmp_path: Path, matrix: Matrix) -> None:
    """What waited on it may be gone, and a second sync of the same file would not tell."""
    row = matrix(ROW)
    each = 4
    syncs = syncs_of_a_workload(tmp_path / "counted")
    for number in range(share(row, 3) // each):
        failing = number % syncs
        recorder = record(tmp_path / "base", 1, fail_sync=failing)
        for count, problem in after_a_failed_sync(recorder, each, tmp_path, number * each):
            with row.trial(f"sync {failing} fails, after operation {count}"):
                assert problem is None
        shutil.rmtree(tmp_path / "base")


def syncs_of_a_workload(root: Path) -> int:
    recorder = Recorder(root)
    root.mkdir()
    create_run(root, name="a-run", config={}, metadata={}, storage=recorder.storage)
    creating = recorder.syncs
    shutil.rmtree(root)
    return record(root, 1).syncs - creating


def images(recorder: Recorder, scratch: Path, row: Row, parts: int) -> Iterator[tuple[int, Path]]:
    """Images at random moments, the end (all is acknowledged) as often as any other; each with its moment, as one trial."""
    rng = random.Random(5)
    for seed in range(share(row, parts)):
        count = recorder.count if seed % 3 == 0 else rng.randrange(recorder.count + 1)
        recorder.image(count, random.Random(seed), scratch / "image")
        with row.trial(f"after operation {count}, seed {seed}"):
            yield count, scratch / "image"
        shutil.rmtree(scratch / "image")


def test_a_power_cut_after_a_run_was_made_finds_all_of_it(tmp_path: Path, matrix: Matrix) -> None:
    root = tmp_path / "base"
    root.mkdir()
    recorder = Recorder(root)
    create_run(root, name="a-run", config={"a": 1}, metadata={}, storage=recorder.storage)
    for count, image in images(recorder, tmp_path, matrix(ROW), 1):
        if count == recorder.count:
            run = locate(image, 1)[0]
            assert run.config() == {"a": 1}
            assert run.metadata().name == "a-run"
            assert (image / "by-name" / "a-run").readlink() == Path("../run_001")


def test_a_power_cut_finds_the_metadata_of_before_or_after_an_update(tmp_path: Path, matrix: Matrix) -> None:
    root = tmp_path / "base"
    root.mkdir()
    recorder = Recorder(root)
    run = create_run(root, name="a-run", config={}, metadata={}, storage=recorder.storage)
    made = recorder.count
    run.update_metadata({"status": "running"})
    updated = recorder.count
    run.update_metadata({"status": "completed"})
    for count, image in images(recorder, tmp_path, matrix(ROW), 1):
        if count >= made:
            status = RunDirectory(image / "run_001").metadata().status
            assert status in ({"created", "running"} if count < updated else {"running", "completed"})
            assert count < recorder.count or status == "completed"


def test_a_power_cut_while_a_log_is_cut_back_loses_no_row(tmp_path: Path, matrix: Matrix) -> None:
    root = tmp_path / "logs"
    root.mkdir()
    recorder = Recorder(root)
    log = MetricsLog(root / "metrics.jsonl", recorder.storage)
    for step in range(1, 7):
        log.append({"step": step})
    log.sync()
    written = recorder.count
    log.truncate_after(3)
    for count, image in images(recorder, tmp_path, matrix(ROW), 1):
        if count >= written:
            kept = [row["step"] for row in read_rows(image / "metrics.jsonl")]
            moved = [row["step"] for row in read_rows(image / "metrics.superseded.jsonl")]
            assert kept in ([1, 2, 3, 4, 5, 6], [1, 2, 3])
            assert len(kept) == 6 or moved == [4, 5, 6]
            assert count < recorder.count or len(kept) == 3


@dataclass
class Aside:
    """A damaged checkpoint is set aside and its name used again; then an older line is taken up, and the name again."""

    recorder: Recorder
    kind: type[CheckpointStore]
    committed: tuple[int, int, int] = (0, 0, 0)

    def run(self) -> None:
        save(CheckpointStore(self.recorder.root, self.recorder.storage), 1)
        store = self.kind(self.recorder.root, self.recorder.storage)
        moments = []
        for generation in ("first", "second", "third"):
            save(store, 2, files={"state.json": b"{}", "generation": generation.encode()})
            moments.append(self.recorder.count)
            if generation == "first":
                self.recorder.storage.write_file(self.recorder.root / "checkpoint-2" / "extra", b"damage")
                store.recover()
            elif generation == "second":
                store.supersede(1)
        self.committed = (moments[0], moments[1], moments[2])

    def broken(self, count: int, image: Path) -> str | None:
        """What is lost of the three checkpoints that had the one name, in an image of a cut after ``count`` operations."""
        found = {path.read_bytes() for path in image.rglob("generation")}
        for name, moment in zip((b"first2", b"second2", b"third2"), self.committed, strict=True):
            if count >= moment and name not in found:
                return f"{name.decode()} was committed and is nowhere"
        store = CheckpointStore(image, ForgetfulStorage())
        store.recover()
        return None if [info.step for info in store.list()][:1] == [1] else "the checkpoint before is lost"


def set_aside(root: Path, kind: type[CheckpointStore] = CheckpointStore) -> Aside:
    root.mkdir()
    aside = Aside(Recorder(root), kind)
    aside.run()
    return aside


def test_a_power_cut_while_checkpoints_are_set_aside_loses_none(tmp_path: Path, matrix: Matrix) -> None:
    aside = set_aside(tmp_path / "store")
    for count, image in images(aside.recorder, tmp_path, matrix(ROW), 2):
        if count >= aside.committed[0]:
            assert aside.broken(count, image) is None


class WithoutTheParentSync(CheckpointStore):
    def _commit(self, temporary: Path, final: Path) -> None:
        self._storage.rename(temporary, final)


class PurgesBeforeCommitting(CheckpointStore):
    def write(self, *arguments: Any, **named: Any) -> Any:
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


class DeletesTheBest(CheckpointStore):
    def prune(self, keep_last_n: int | None, *arguments: Any, **named: Any) -> Any:
        assert keep_last_n is not None
        return [info.name for info in self.list()[:-keep_last_n] if self._remove(info.path)]


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


class WritesTheManifestFirst(CheckpointStore):
    """The whole protocol backwards: the final name, then the manifest in it, then the files that the manifest lists."""

    def _commit(self, temporary: Path, final: Path) -> None:
        files = {path.relative_to(temporary): path.read_bytes() for path in sorted(temporary.rglob("*")) if path.is_file()}
        for path in files:
            self._storage.unlink(temporary / path)
        super()._commit(temporary, final)
        for path in sorted(files, key=lambda path: path.name != layout.MANIFEST):
            self._storage.write_file(final / path, files[path])
            self._storage.sync_directory((final / path).parent)


class CommitsBeforeTheManifest(CheckpointStore):
    def _commit(self, temporary: Path, final: Path) -> None:
        manifest = (temporary / layout.MANIFEST).read_bytes()
        self._storage.unlink(temporary / layout.MANIFEST)
        super()._commit(temporary, final)
        self._storage.write_file(final / layout.MANIFEST, manifest)
        self._storage.sync_directory(final)


class Overwrites(CheckpointStore):
    def _check_new(self, name: str, files: Any) -> None:
        pass

    def _commit(self, temporary: Path, final: Path) -> None:
        if final.exists():
            self._storage.remove_tree(final)
        super()._commit(temporary, final)


class TriesAFailedSyncAgain(CheckpointStore):
    """The parent's sync says no once and yes the second time, and the checkpoint is told to be saved."""

    def _commit(self, temporary: Path, final: Path) -> None:
        self._storage.rename(temporary, final)
        try:
            self._storage.sync_directory(self.directory)
        except OSError:
            self._storage.sync_directory(self.directory)


def keeping(kind: type[CheckpointStore]) -> type[Workload]:
    """A workload whose store is of another kind."""

    class OtherStore(Workload):
        def store(self) -> CheckpointStore:
            return kind(layout.weights_directory(self.run.path), self.recorder.storage)

    return OtherStore


def on_storage(change: Callable[[Any], None]) -> type[Workload]:
    """A workload on a storage that ``change`` has done something to."""

    class OtherStorage(Workload):
        def store(self) -> CheckpointStore:
            change(self.recorder.storage)
            return super().store()

    return OtherStorage


def without(operation: str) -> Callable[[Any], None]:
    return lambda storage: setattr(storage, operation, lambda *arguments: None)


def without_directory_sync(which: Callable[[Path], bool]) -> Callable[[Any], None]:
    def change(storage: Any) -> None:
        real = storage.sync_directory
        storage.sync_directory = lambda path: None if which(path) else real(path)

    return change


def without_file_sync(which: Callable[[Path], bool]) -> Callable[[Any], None]:
    def change(storage: Any) -> None:
        real = storage.write_file

        def write_file(path: Path, content: Any) -> Any:
            if not which(path):
                return real(path, content)
            storage.sync_file = lambda descriptor: None
            try:
                return real(path, content)
            finally:
                del storage.sync_file

        storage.write_file = write_file

    return change


def without_pointer_sync(storage: Any) -> None:
    """Leave out the sync of the directory that follows each replacement of a pointer."""
    real_replace, real_sync = storage.replace, storage.sync_directory
    pending: list[Path] = []

    def replace(source: Path, target: Path) -> None:
        real_replace(source, target)
        if target.name in layout.POINTERS:
            pending.append(target.parent)

    def sync_directory(path: Path) -> None:
        if pending:
            pending.clear()
        else:
            real_sync(path)

    storage.replace, storage.sync_directory = replace, sync_directory


def removing_first(which: Callable[[Path], bool]) -> Callable[[Any], None]:
    """Remove what a file replaces before the new one is put in its place."""

    def change(storage: Any) -> None:
        real = storage.replace

        def replace(source: Path, target: Path) -> None:
            if which(target) and os.path.lexists(target):
                storage.unlink(target)
            real(source, target)

        storage.replace = replace

    return change


class LogIsNotSynced(Workload):
    def sync_log(self) -> None:
        pass


class LogIsSyncedAfterTheCommit(Workload):
    def save(self, step: int) -> None:
        self.commit(step)
        self.acknowledge(step)
        self.sync_log()
        self.tidy(step)


class AcknowledgesBeforeTheCommit(Workload):
    def save(self, step: int) -> None:
        self.sync_log()
        self.acknowledge(step)
        self.commit(step)
        self.tidy(step)


class MetadataBeforeTheCommit(Workload):
    def commit(self, step: int) -> None:
        listed = self.run.metadata().content["checkpoints"]
        self.run.update_metadata({"checkpoints": [*listed, {"name": layout.step_name(step), "step": step}]})
        super().commit(step)


class PointersBeforeTheCommit(Workload):
    def commit(self, step: int) -> None:
        for which in layout.POINTERS:
            temporary = self.run.store.directory / f".tmp-{which}"
            self.recorder.storage.symlink(layout.step_name(step), temporary)
            self.recorder.storage.replace(temporary, self.run.store.directory / which)
        self.recorder.storage.sync_directory(self.run.store.directory)
        super().commit(step)


def is_manifest(path: Path) -> bool:
    return path.name == layout.MANIFEST


def is_metadata(path: Path) -> bool:
    return layout.METADATA in path.name


MUTANTS: dict[str, type[Workload]] = {
    "a pointer is not synced": on_storage(without_pointer_sync),
    "a pointer is removed before it is replaced": on_storage(removing_first(lambda path: path.name in layout.POINTERS)),
    "pointers are moved before the commit": PointersBeforeTheCommit,
    "a directory inside is not synced": on_storage(without_directory_sync(lambda path: path.name == "templates")),
    "no file is synced": on_storage(without("sync_file")),
    "no directory is synced": on_storage(without("sync_directory")),
    "the weights are not synced": on_storage(without_file_sync(lambda path: path.name == "adapter_model.safetensors")),
    "the manifest is not synced": on_storage(without_file_sync(is_manifest)),
    "the temporary directory is not synced": on_storage(without_directory_sync(lambda path: path.name.startswith(".tmp-"))),
    "the parent is not synced after the rename": keeping(WithoutTheParentSync),
    "a sync that failed is tried again": keeping(TriesAFailedSyncAgain),
    "older ones are purged before the commit": keeping(PurgesBeforeCommitting),
    "retention deletes in place": keeping(DeletesInPlace),
    "retention deletes before the trash is durable": keeping(DeletesBeforeTheTrashIsDurable),
    "retention deletes the best": keeping(DeletesTheBest),
    "files are written under the final name": keeping(WritesUnderTheFinalName),
    "the manifest is written first, under the final name": keeping(WritesTheManifestFirst),
    "the rename comes before the manifest": keeping(CommitsBeforeTheManifest),
    "a checkpoint is overwritten": keeping(Overwrites),
    "the log is not synced": LogIsNotSynced,
    "the log is synced after the commit": LogIsSyncedAfterTheCommit,
    "the name of a new log is not synced": on_storage(without_directory_sync(lambda path: path.name == layout.LOGS)),
    "a save is told of before its commit": AcknowledgesBeforeTheCommit,
    "the metadata lists a checkpoint before its commit": MetadataBeforeTheCommit,
    "the metadata is not synced": on_storage(without_file_sync(is_metadata)),
    "the metadata is removed before it is replaced": on_storage(removing_first(is_metadata)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_protocol_is_caught(mutant: str, tmp_path: Path, matrix: Matrix) -> None:
    def caught() -> bool:
        for keep in (1, 2):
            recorder = record(tmp_path / f"keep-{keep}", keep, MUTANTS[mutant])
            if first_broken(recorder, keep, tmp_path, MUTANT_IMAGES):
                return True
        for failing in range(syncs_of_a_workload(tmp_path / "counted")):
            recorder = record(tmp_path / f"failing-{failing}", 1, MUTANTS[mutant], fail_sync=failing)
            if any(problem for _, problem in after_a_failed_sync(recorder, 4, tmp_path)):
                return True
        return False

    with matrix("mutants of the protocol").trial(mutant):
        assert caught()


class SetsAsideWithoutSyncing(CheckpointStore):
    def _set_aside(self, name: str, where: str) -> Path:
        self._storage.sync_directory = lambda path: None  # type: ignore[method-assign]
        try:
            return super()._set_aside(name, where)
        finally:
            del self._storage.sync_directory


class DeletesDamagedOnes(CheckpointStore):
    def _quarantine(self, name: str, reason: str) -> tuple[str, str]:
        self._discard(self.directory / name)
        return (name, reason)


class DeletesTheOtherLine(CheckpointStore):
    def supersede(self, after_step: int) -> Any:
        return [info.name for info in self.list() if info.step > after_step and self._remove(info.path)]


class SetsAsideUnderATakenName(CheckpointStore):
    def _set_aside(self, name: str, where: str) -> Path:
        target = self.directory / ".aside" / name
        if target.exists():
            self._storage.remove_tree(target)
        if not target.parent.exists():
            self._storage.make_directory(target.parent)
        self._storage.rename(self.directory / name, target)
        self._storage.sync_directory(target.parent)
        self._storage.sync_directory(self.directory)
        return target


ASIDE_MUTANTS = {
    "what is set aside is not synced": SetsAsideWithoutSyncing,
    "recovery deletes what is damaged": DeletesDamagedOnes,
    "an abandoned line is deleted": DeletesTheOtherLine,
    "what is set aside takes the place of what was before": SetsAsideUnderATakenName,
}


@pytest.mark.parametrize("mutant", ASIDE_MUTANTS)
def test_a_broken_way_of_setting_aside_is_caught(mutant: str, tmp_path: Path, matrix: Matrix) -> None:
    aside = set_aside(tmp_path / "store", ASIDE_MUTANTS[mutant])
    problems = []
    for seed in range(MUTANT_IMAGES):
        count = random.Random(seed).randrange(aside.committed[0], aside.recorder.count + 1)
        aside.recorder.image(count, random.Random(seed), tmp_path / "image")
        problems.append(aside.broken(count, tmp_path / "image"))
        shutil.rmtree(tmp_path / "image")
    with matrix("mutants of the protocol").trial(mutant):
        assert any(problems)
