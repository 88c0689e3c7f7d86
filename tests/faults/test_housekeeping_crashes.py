"""Pruning and deleting when the process dies, the power is cut or the disk says no: what is kept is whole, what goes is gone."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import locking
from pitstop.checkpointing.disk.storage import Storage
from pitstop.checkpointing.runs import housekeeping, name_links, retention
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.housekeeping import (
    Removal,
    delete_run,
    left_of_deletion,
    prune_bases,
    prune_deleted,
    prune_run,
)
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import PitstopError, ResourceError, RunError
from support.crashes import crash_everywhere
from support.disk_model import Recorder
from support.fault_matrix import Matrix
from support.housekeeping import DIGEST, LOSSES, UNUSED, checkpoints, litter, make_run, names, place_base
from support.stores import Counter, ForgetfulStorage, HookedStorage, failing, in_child

pytestmark = pytest.mark.faults

AGAIN = "crash during recovery or retention, again and again"

ERRORS = [errno.ENOSPC, errno.EIO]
IMAGES = 300


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


def reopened(path: Path, storage: Storage | None = None) -> RunDirectory:
    return RunDirectory(path, storage or ForgetfulStorage())


def fresh(base: Path, storage: Storage | None = None) -> None:
    """Two runs that share a base: ``kept`` and ``doomed``, and a base that no run uses."""
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    make_run(base, "kept", steps=(1, 2), keep_last_n=2, storage=storage)
    make_run(base, "doomed", resumed_from=3, storage=storage)
    place_base(base, UNUSED, storage=storage)
    locking.release(base / ".base_models" / ".starting.lock")


def check_kept(base: Path) -> None:
    kept = locate(base, "kept")[0]
    assert (kept.label, names(kept)) == ("run_001", checkpoints(1, 2))
    assert kept.metadata().name == "kept"
    BaseModels(base).base_path(kept.path)
    BaseModels(base).verify(DIGEST)


def check_whole_or_gone(base: Path) -> bool:
    """Whether the doomed run is whole; else nothing that lists or finds runs sees any of it."""
    check_kept(base)
    listed = {record.name: record for record in list_runs(base)}
    if "doomed" in listed:
        run = locate(base, "doomed")[0]
        assert (run.label, listed["doomed"].checkpoints) == ("run_002", len(LOSSES))
        assert names(run) == checkpoints(*LOSSES)
        assert run.config() and run.metadata().resumes
        BaseModels(base).base_path(run.path)
        return True
    assert list(listed) == ["kept"]
    for ref in (2, "run_002", "doomed", str(base / "run_002")):
        with pytest.raises(RunError):
            locate(base, ref)[0]
    return False


def check_a_new_run_is_itself(base: Path, whole: bool) -> None:
    """A training that starts now shares number and name with nobody, whatever is left lying about."""
    run = create_run(base, name="doomed", config={}, metadata={}, storage=ForgetfulStorage())
    assert run.label == ("run_003" if whole else "run_002")
    records = list_runs(base)
    assert len({record.name for record in records}) == len(records)
    for record in records:
        assert locate(base, record.name)[0].label == record.run
    assert {path.name for path in name_links.listed(base)} - {path.name for path in name_links.dangling(base)} == {
        record.name for record in records
    }
    delete_run(run)


def finish(base: Path) -> None:
    """What `pitstop delete doomed` does when it is called again."""
    try:
        delete_run(reopened(locate(base, "doomed")[0].path))
    except RunError:
        assert left_of_deletion(base, "2") or not litter(base)
    prune_deleted(base, storage=ForgetfulStorage())


def check_finished(base: Path) -> None:
    assert not check_whole_or_gone(base)
    assert litter(base) == []
    assert [path.name for path in name_links.listed(base)] == ["kept"]
    assert not left_of_deletion(base, "2")


# Deleting


def test_dying_before_any_operation_of_a_deletion_leaves_the_whole_run_or_none_of_it(base: Path, matrix: Matrix) -> None:
    states: list[bool] = []

    def check(at: int) -> None:
        states.append(check_whole_or_gone(base))
        check_a_new_run_is_itself(base, states[-1])
        check_kept(base)
        finish(base)
        check_finished(base)
        finish(base)  # once more is no harm
        check_finished(base)

    def body(storage: Storage) -> None:
        delete_run(reopened(base / "run_002", storage))

    operations = crash_everywhere(matrix(AGAIN), lambda: fresh(base), body, check, every=3)
    assert operations > 20
    assert states[0] and not states[-1]
    assert states == sorted(states, reverse=True), "once gone, it stays gone"


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.__getitem__)
def test_a_failing_disk_costs_the_deletion_and_nothing_else(number: int, base: Path) -> None:
    for at in range(1000):
        fresh(base)
        try:
            delete_run(reopened(base / "run_002", HookedStorage(before=Counter(at, failing(number)))))
            break
        except ResourceError as error:
            whole = check_whole_or_gone(base)
            assert ("all of it is still there" in str(error.hint)) == whole
            assert whole or "no longer listed" in error.message
        finish(base)
        check_finished(base)
    assert at > 20
    check_finished(base)


# Pruning


def prune_all(base: Path, storage: Storage) -> Removal:
    """What `pitstop prune` does."""
    outcome = Removal()
    for record in list_runs(base):
        run = reopened(Path(record.path), storage)
        outcome.add(prune_run(run, retention.keep_last_n(run)))
    outcome.add(prune_bases(base, storage=storage))
    outcome.add(prune_deleted(base, storage=storage))
    return outcome


def littered(base: Path, storage: Storage | None = None) -> None:
    """As ``fresh``, with what crashes leave everywhere."""
    disk = storage or ForgetfulStorage()
    fresh(base, disk)
    for place in (".trash-run_007-aa", "run_002/lora_weights/.tmp-checkpoint-6-bb", ".base_models/.tmp-other-cc"):
        disk.make_directory(base / place)
        disk.write_file(base / place / "half", b"half")
    disk.symlink("../run_007", base / "by-name" / "seventh")


def check_retained(base: Path) -> list[str]:
    """The pinned ones are there and whole, and so are all that are listed."""
    check_kept(base)
    run = locate(base, "doomed")[0]
    there = names(run)
    assert set(checkpoints(2, 3, 5)) <= set(there) <= set(checkpoints(*LOSSES))
    assert set(retention.pins(run)) == set(checkpoints(2, 3, 5))
    assert run.metadata().resumes[-1].checkpoint == "checkpoint-3"
    BaseModels(base).base_path(run.path)
    bases = BaseModels(base)
    assert UNUSED not in bases.digests() or bases.verify(UNUSED)
    return there


def check_pruned(base: Path) -> None:
    assert check_retained(base) == checkpoints(2, 3, 5)
    assert [entry.name for entry in locate(base, "doomed")[0].metadata().checkpoints] == checkpoints(2, 3, 5)
    assert BaseModels(base).digests() == [DIGEST]
    assert litter(base) == []
    assert sorted(path.name for path in name_links.listed(base)) == ["doomed", "kept"]


def test_dying_before_any_operation_of_pruning_costs_nothing_that_is_kept(base: Path, matrix: Matrix) -> None:
    left: list[int] = []

    def check(at: int) -> None:
        left.append(len(check_retained(base)))
        prune_all(base, ForgetfulStorage())
        check_pruned(base)
        again = prune_all(base, ForgetfulStorage())
        assert (again.removed, again.failed) == ([], [])

    operations = crash_everywhere(matrix(AGAIN), lambda: littered(base), lambda storage: prune_all(base, storage), check, every=3)
    assert operations > 20
    assert left == sorted(left, reverse=True) and {left[0], left[-1]} == {5, 3}


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.__getitem__)
def test_a_failing_disk_keeps_pruning_from_one_thing_and_costs_nothing_that_is_kept(number: int, base: Path) -> None:
    for at in range(1000):
        littered(base)
        counter = Counter(at, failing(number))
        outcome = prune_all(base, HookedStorage(before=counter))
        check_retained(base)
        if counter.seen <= at:
            break
        assert [reason for _, reason in outcome.failed], f"operation {at} failed and nobody was told"
        prune_all(base, ForgetfulStorage())
        check_pruned(base)
    assert at > 20
    check_pruned(base)


def full(name: str, arguments: tuple[Any, ...]) -> None:
    if name in ("make_directory", "create", "write", "symlink", "link"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_stays_full_can_be_tidied(base: Path) -> None:
    littered(base)
    outcome = prune_all(base, HookedStorage(before=full))
    assert check_retained(base) == checkpoints(2, 3, 5)
    assert litter(base) == [] and BaseModels(base).digests() == [DIGEST]
    assert [item.name for item, _ in outcome.failed] == ["metadata.json"], "it had no room to say so"
    delete_run(reopened(base / "run_002", HookedStorage(before=full)))
    check_finished(base)


# Power cuts


def images(recorder: Recorder, scratch: Path, since: int, cuts: int) -> Iterator[tuple[int, Path]]:
    """Power cuts at each moment from ``since`` on, in turn; every third at the end, when all is acknowledged."""
    moments = range(since, recorder.count + 1)
    for seed in range(max(cuts, len(moments))):
        count = recorder.count if seed % 3 == 0 else moments[seed % len(moments)]
        recorder.image(count, random.Random(seed), scratch / "image")
        yield count, scratch / "image"
        shutil.rmtree(scratch / "image")


def recorded(base: Path, prepare: Callable[[Path, Storage], None]) -> Recorder:
    base.mkdir()
    recorder = Recorder(base)
    prepare(base, recorder.storage)
    return recorder


def prepare_two(base: Path, storage: Storage) -> None:
    make_run(base, "kept", steps=(1, 2), keep_last_n=2, storage=storage)
    make_run(base, "doomed", resumed_from=3, storage=storage)


def broken_deletion(
    base: Path, scratch: Path, mutate: Callable[[Any], None] = lambda storage: None, cuts: int = IMAGES
) -> str | None:
    """What a power cut during a deletion breaks; None when it breaks nothing."""
    recorder = recorded(base, prepare_two)
    made = recorder.count
    mutate(recorder.storage)
    delete_run(RunDirectory(base / "run_002", recorder.storage))
    for count, image in images(recorder, scratch, made, cuts):
        try:
            whole = check_whole_or_gone(image)
            assert count < recorder.count or not (whole or name_links.dangling(image)), "it came back"
            check_a_new_run_is_itself(image, whole)
            finish(image)
            check_finished(image)
        except (AssertionError, PitstopError, OSError) as error:
            return f"after operation {count}: {error}"
    return None


def broken_pruning(
    base: Path, scratch: Path, mutate: Callable[[Any], None] = lambda storage: None, cuts: int = IMAGES
) -> str | None:
    """What a power cut during pruning breaks; None when it breaks nothing."""
    recorder = recorded(base, prepare_two)
    place_base(base, UNUSED, storage=recorder.storage)
    locking.release(base / ".base_models" / ".starting.lock")
    made = recorder.count
    mutate(recorder.storage)
    prune_all(base, recorder.storage)
    for count, image in images(recorder, scratch, made, cuts):
        try:
            there = check_retained(image)
            assert count < recorder.count or there == checkpoints(2, 3, 5), "some came back"
            prune_all(image, ForgetfulStorage())
            check_pruned(image)
        except (AssertionError, PitstopError, OSError) as error:
            return f"after operation {count}: {error}"
    return None


@pytest.fixture
def cuts(matrix: Matrix) -> int:
    """Each moment once is the least."""
    return IMAGES if matrix(AGAIN).is_full else 0


def test_no_power_cut_leaves_half_a_run(base: Path, tmp_path: Path, cuts: int) -> None:
    assert broken_deletion(base, tmp_path, cuts=cuts) is None


def test_no_power_cut_during_pruning_costs_what_is_kept(base: Path, tmp_path: Path, cuts: int) -> None:
    assert broken_pruning(base, tmp_path, cuts=cuts) is None


def no_directory_is_synced(storage: Any) -> None:
    storage.sync_directory = lambda path: None


def the_place_of_the_run_is_not_synced(storage: Any) -> None:
    real = storage.sync_directory
    storage.sync_directory = lambda path: None if path.name == "base" else real(path)


def the_checkpoints_are_not_synced(storage: Any) -> None:
    real = storage.sync_directory
    storage.sync_directory = lambda path: None if path.name in ("lora_weights", ".base_models") else real(path)


def nothing_is_renamed(storage: Any) -> None:
    """Deleting in place: the tree of the trash is deleted where the run was."""
    real = storage.remove_tree
    renamed: dict[Path, Path] = {}
    storage.rename = lambda source, target: renamed.__setitem__(target, source)

    def remove_tree(path: Path) -> None:
        for target, source in renamed.items():
            if path == target or target in path.parents:
                path = source / path.relative_to(target)
        real(path)

    storage.remove_tree = remove_tree


@pytest.mark.parametrize(
    "mutate", [no_directory_is_synced, the_place_of_the_run_is_not_synced], ids=lambda mutate: mutate.__name__
)
def test_a_broken_protocol_of_deleting_is_caught(mutate: Callable[[Any], None], base: Path, tmp_path: Path) -> None:
    assert broken_deletion(base, tmp_path, mutate)


@pytest.mark.parametrize(
    "mutate", [no_directory_is_synced, the_checkpoints_are_not_synced, nothing_is_renamed], ids=lambda mutate: mutate.__name__
)
def test_a_broken_protocol_of_pruning_is_caught(mutate: Callable[[Any], None], base: Path, tmp_path: Path) -> None:
    assert broken_pruning(base, tmp_path, mutate)


def test_deleting_in_place_is_caught(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "to_trash", lambda storage, path: path)
    assert broken_deletion(base, tmp_path)


# Many at once


def test_runs_that_start_while_others_are_deleted_never_share_a_number_or_a_name(base: Path) -> None:
    base.mkdir()
    create_run(base, name="same", config={}, metadata={})  # or children that happen to take turns would all delete number 1

    def start_and_delete() -> None:
        for _ in range(15):
            run = create_run(base, name="same", config={}, metadata={}, storage=ForgetfulStorage())
            assert run.metadata().name == locate(base, run.number)[0].name
            if run.number % 2:
                delete_run(run)

    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            os._exit(in_child(start_and_delete))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    records = list_runs(base)
    assert records and len({record.name for record in records}) == len(records)
    assert {path.name: name_links.target(path) for path in name_links.listed(base)} == {
        record.name: f"../{record.run}" for record in records
    }
    assert litter(base) == []
