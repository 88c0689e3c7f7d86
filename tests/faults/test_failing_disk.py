"""The disk says no, at every single operation of a save."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import FileRecord
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.store.store import CheckpointStore
from pitstop.configs.errors import PitstopError, ResourceError
from support.fault_matrix import Matrix, is_caught
from support.stores import Counter, ForgetfulStorage, HookedStorage, failing, leftovers, save

pytestmark = pytest.mark.faults

ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS]
ROW = "ENOSPC, EIO, EDQUOT, short write at the k-th operation, for every k"


class CutShort(HookedStorage):
    """The first write from the ``at``-th operation on takes only a part, and the next one finds the disk full."""

    def __init__(self, at: int) -> None:
        self.at, self.seen, self.cut = at, 0, False
        super().__init__(before=self._count)

    def _count(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.seen += 1

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.cut:
            failing(errno.ENOSPC)()
        if self.seen >= self.at and len(data) > 1:
            self.cut = True
            data = data[: len(data) // 3 + 1]
        return int(super().write(descriptor, data))


def disk(kind: int | str, at: int) -> HookedStorage:
    return CutShort(at) if isinstance(kind, str) else HookedStorage(before=Counter(at, failing(kind)))


def kind_name(kind: int | str) -> str:
    return kind if isinstance(kind, str) else errno.errorcode[kind]


def save_survives(store: CheckpointStore) -> bool:
    """Save a second checkpoint on a disk that may refuse; whether it was saved. If not, nothing else may be different."""
    try:
        save(store, 2)
        return True
    except ResourceError as error:
        assert str(store.directory / "checkpoint-2") in error.message
        assert error.hint is not None
    assert leftovers(store.directory) == []
    assert [info.step for info in store.list()] == [1]
    store.verify("checkpoint-1")
    return False


@pytest.mark.parametrize("kind", [*ERRORS, "short write"], ids=kind_name)
def test_one_failing_operation_costs_that_save_and_nothing_else(kind: int | str, tmp_path: Path, matrix: Matrix) -> None:
    row = matrix(ROW)
    directory = tmp_path / "lora_weights"
    save(CheckpointStore(directory, ForgetfulStorage()), 1)
    for at in range(1000):
        store = CheckpointStore(directory, disk(kind, at))
        with row.trial(f"{kind_name(kind)} at operation {at}"):
            if save_survives(store):
                break
    assert at > (14 if kind == "short write" else 20)  # the last write is that of the manifest
    assert [info.step for info in store.list()] == [1, 2]


@pytest.mark.parametrize("kind", [*ERRORS, "short write"], ids=kind_name)
def test_no_failing_operation_of_tidying_up_costs_a_checkpoint_that_is_kept(
    kind: int | str, tmp_path: Path, matrix: Matrix
) -> None:
    row = matrix(ROW)
    directory = tmp_path / "lora_weights"
    at, finished = 0, False
    while not finished:
        store = CheckpointStore(directory, ForgetfulStorage())
        for step in (1, 2, 3):
            save(store, step, loss=1 / step)
        with row.trial(f"{kind_name(kind)} at operation {at} of pointers and retention"):
            faulty = disk(kind, at)
            store = CheckpointStore(directory, faulty)
            try:
                store.repair_pointers()
                store.prune(1)
            except ResourceError as error:
                assert error.hint is not None
            finished = (faulty.before.seen if isinstance(faulty.before, Counter) else faulty.seen) <= at  # type: ignore[attr-defined]
            store = CheckpointStore(directory, ForgetfulStorage())
            assert all(entry.problem is None for entry in store.verify_all())
            assert store.recover(deep=True).checkpoint().step == 3
            assert store.pointer("last") == store.pointer("best") == "checkpoint-3"
            assert leftovers(directory) == []
        shutil.rmtree(directory)
        at += 1
    assert at > 10


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.__getitem__)
def test_a_disk_that_stays_full_can_still_be_tidied(number: int, tmp_path: Path) -> None:
    directory = tmp_path / "lora_weights"
    save(CheckpointStore(directory, ForgetfulStorage()), 1)
    for at in range(30):
        counter = {"seen": 0}

        def before(name: str, _: tuple[Any, ...], at: int = at, counter: dict[str, int] = counter) -> None:
            counter["seen"] += 1
            if counter["seen"] > at and name in ("make_directory", "create", "write", "sync_file"):
                raise OSError(number, os.strerror(number))

        store = CheckpointStore(directory, HookedStorage(before=before))
        try:
            save(store, 2)
        except ResourceError:
            assert leftovers(directory) == []
            assert [info.step for info in store.list()] == [1]
        else:
            break
    assert at > 10


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, HookedStorage())
    store._storage.free_space = lambda path: 1000  # type: ignore[method-assign]
    with pytest.raises(ResourceError, match=r"it needs [\d,]+ bytes, 1,000 are free"):
        save(store, 1)
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_completed(tmp_path: Path) -> None:
    class Short(ForgetfulStorage):
        def write(self, descriptor: int, data: memoryview) -> int:
            return super().write(descriptor, data[: max(1, len(data) // 3)])

    store = CheckpointStore(tmp_path, Short())
    assert store.verify(save(store, 1).name).step == 1


def test_a_write_that_takes_nothing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    class Stuck(ForgetfulStorage):
        def write(self, descriptor: int, data: memoryview) -> int:
            return 0

    with pytest.raises(ResourceError):
        save(CheckpointStore(tmp_path, Stuck()), 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.__getitem__)
def test_a_run_is_made_in_full_or_not_at_all(number: int, tmp_path: Path) -> None:
    config = {"training": {"task": "sft"}}
    for at in range(1000):
        try:
            create_run(
                tmp_path, name="a-run", config=config, metadata={}, storage=HookedStorage(before=Counter(at, failing(number)))
            )
            break
        except PitstopError:
            assert list_runs(tmp_path) == []
            assert [path for path in tmp_path.iterdir() if path.name != layout.BY_NAME] == []
    assert at > 10
    assert [record.name for record in list_runs(tmp_path)] == ["a-run"]


def test_failed_updates_leave_the_old_metadata(tmp_path: Path) -> None:
    run = create_run(tmp_path, name="a-run", config={}, metadata={}, storage=ForgetfulStorage())
    for at in range(100):
        run.storage = HookedStorage(before=Counter(at, failing(errno.ENOSPC)))
        try:
            run.update_metadata({"status": "running"})
            break
        except ResourceError:
            assert leftovers(run.path) == []
            assert run.metadata().status in ("created", "running")
    assert at > 3


def test_everything_is_private_to_the_user(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", name="a-run", config={}, metadata={})
    save(run.store, 1)
    for path in (tmp_path / "runs").rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not path.is_symlink():
            assert mode == (0o700 if path.is_dir() else 0o600), path


class LeavesItsMess(CheckpointStore):
    def _discard(self, path: Path) -> bool:
        return False


class LetsErrorsThrough(CheckpointStore):
    def write(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().write(*arguments, **named)
        except ResourceError as error:
            assert error.__cause__ is not None
            raise error.__cause__ from None


class SavesAroundErrors(CheckpointStore):
    """Takes a file that could not be written in full for written."""

    def _write_files(self, temporary: Path, files: Any) -> Any:
        self._storage.make_directory(temporary)
        records = {}
        for name, content in files.items():
            try:
                records[name] = self._storage.write_file(temporary / name, content)
            except OSError:
                records[name] = FileRecord(len(content), hashlib.sha256(content).hexdigest())
        return records


class IgnoresShortWrites(ForgetfulStorage):
    def write(self, descriptor: int, data: memoryview) -> int:
        return super().write(descriptor, data[: max(1, len(data) // 3)])

    def _write_all(self, descriptor: int, piece: memoryview) -> None:
        self.write(descriptor, piece)


@pytest.mark.parametrize("mutant", [LeavesItsMess, LetsErrorsThrough, SavesAroundErrors])
def test_a_store_that_fails_badly_is_caught(mutant: type[CheckpointStore], tmp_path: Path, matrix: Matrix) -> None:
    def check() -> None:
        for at in range(30):
            save(CheckpointStore(tmp_path / str(at), ForgetfulStorage()), 1)
            store = mutant(tmp_path / str(at), disk(errno.ENOSPC, at))
            if save_survives(store):
                store.verify("checkpoint-2")

    with matrix("mutants of the protocol").trial(mutant.__name__):
        assert is_caught(check)


def test_a_storage_that_ignores_short_writes_is_caught(tmp_path: Path, matrix: Matrix) -> None:
    save(CheckpointStore(tmp_path, ForgetfulStorage()), 1)
    store = CheckpointStore(tmp_path, IgnoresShortWrites())
    with matrix("mutants of the protocol").trial("short writes"):
        assert is_caught(lambda: save_survives(store) and store.verify("checkpoint-2"))
