"""A pull that dies, loses power or meets a bad disk leaves no run or the whole run, and the next one goes on."""

from __future__ import annotations

import errno
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk.metrics_log import read_rows
from pitstop.checkpointing.disk.storage import Storage
from pitstop.checkpointing.hub.pull import pull
from pitstop.checkpointing.hub.remote_repository import RemoteRepository
from pitstop.checkpointing.runs import name_links
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.housekeeping import prune_deleted
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.push_records import Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.runs.verification import Verifier
from pitstop.configs.errors import PitstopError, ResourceError, RunError
from support.crashes import CRASHED, crash_everywhere, crashing
from support.disk_model import Recorder
from support.fault_matrix import Matrix
from support.housekeeping import litter
from support.repositories import BASE_DIGEST, REPO, UID, FakeHub, Files, repository
from support.stores import Counter, ForgetfulStorage, HookedStorage, failing, fast_directory, in_child

pytestmark = pytest.mark.faults

AGAIN = "crash during recovery or retention, again and again"
IMAGES = 200


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory:
        yield repository(Path(directory), base=True)


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory:
        yield Path(directory) / "base"


def fresh(base: Path, storage: Storage | None = None) -> None:
    """A base directory with a run of the same name, whose number a deletion has freed before."""
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    create_run(base, name="a-run", config={}, metadata={}, storage=storage or ForgetfulStorage())


def whole(base: Path, files: Files) -> bool:
    """Whether the pulled run is there, and then it is whole; else nothing that lists or finds runs sees any of it."""
    assert locate(base, "a-run")[0].label == "run_001"
    records = list_runs(base)
    if len(records) == 1:
        for ref in (2, "run_002", "a-run-2"):
            with pytest.raises(RunError):
                locate(base, ref)[0]
        return False
    assert [record.run for record in records] == ["run_001", "run_002"]
    run = locate(base, "a-run-2")[0]
    assert (run.label, run.metadata().name, run.metadata().status) == ("run_002", "a-run-2", "interrupted")
    assert [part.problem for part in Verifier().run(RunDirectory(run.path)) if part.problem] == []
    assert RunDirectory(run.path).store.verify("last").name == "checkpoint-6"
    assert (run.path / "config.json").read_bytes() == files["run/config.json"]
    assert [row["step"] for row in read_rows(run.metrics_path)] == [1, 2, 3, 4, 5, 6]
    BaseModels(base).base_path(run.path, BASE_DIGEST)
    arrived, destination = Outbox(run.path).arrived(), Outbox(run.path).destination()
    assert arrived.uid == UID and destination is not None and destination.repo == REPO
    return True


def pulled(base: Path, files: Files, storage: Storage | None = None) -> FakeHub:
    disk = storage or ForgetfulStorage()
    hub = FakeHub(files, storage=disk)
    pull(RemoteRepository(hub, REPO), base, storage=disk)
    return hub


def finished(base: Path, files: Files) -> None:
    """The same command again makes it whole, or says that it is."""
    if whole(base, files):
        with pytest.raises(RunError, match="already"):
            pulled(base, files)
    else:
        pulled(base, files)
    assert whole(base, files)
    prune_deleted(base, storage=ForgetfulStorage())
    assert litter(base) == []
    assert sorted(path.name for path in name_links.listed(base)) == ["a-run", "a-run-2"]


def test_dying_before_any_operation_of_a_pull_leaves_no_run_or_the_whole_run(files: Files, base: Path, matrix: Matrix) -> None:
    seen: list[bool] = []

    def check(at: int) -> None:
        seen.append(whole(base, files))
        finished(base, files)

    operations = crash_everywhere(
        matrix(AGAIN), lambda: fresh(base), lambda storage: pulled(base, files, storage), check, every=4
    )
    assert operations > 100
    assert seen == sorted(seen) and set(seen) == {False, True}, "once it is there, it stays"


def test_a_pull_that_dies_again_and_again_comes_to_its_end(files: Files, base: Path, matrix: Matrix) -> None:
    rng = random.Random(7)
    row = matrix(AGAIN)
    for number in range(row.count // 12):
        fresh(base)
        with row.trial(f"pull {number}"):
            for _ in range(200):
                at = rng.randrange(20, 120)
                code = in_child(lambda at=at: pulled(base, files, crashing(at)))  # type: ignore[misc]
                if code != CRASHED:
                    break
                whole(base, files)
            assert code in (0, 99), "done, or refused since it was done when it died"
            finished(base, files)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.__getitem__)
def test_a_failing_disk_costs_the_pull_and_nothing_else(number: int, files: Files, base: Path) -> None:
    for at in range(0, 1000, 3):
        fresh(base)
        counter = Counter(at, failing(number))
        disk = HookedStorage(before=counter)
        try:
            pull(RemoteRepository(FakeHub(files), REPO), base, storage=disk)
        except (ResourceError, RunError) as error:
            assert str(error)
            assert not whole(base, files), "it failed, so it is not there"
            assert name_links.dangling(base) == []
        if counter.seen <= at:
            break
        finished(base, files)
    assert at > 60


def test_after_a_crash_nothing_is_fetched_twice(files: Files, base: Path) -> None:
    """Files that are complete are kept, those of a run that was half built too."""
    again: list[int] = []
    for at in range(0, 1000, 7):
        fresh(base)
        code = in_child(lambda at=at: pulled(base, files, crashing(at)))  # type: ignore[misc]
        if code == 0 or whole(base, files):
            break
        again.append(len(pulled(base, files).downloads))
    assert again == sorted(again, reverse=True)
    assert again[0] == 14 and again[-1] == 2, "the inventory and the base's manifest, whose hashes nobody tells"


# Power cuts


def broken_pull(
    base: Path, files: Files, scratch: Path, mutate: Callable[[Any], None] = lambda storage: None, cuts: int = IMAGES
) -> str | None:
    """What a power cut during a pull breaks; None when it breaks nothing."""
    base.mkdir()
    recorder = Recorder(base)
    fresh_storage = recorder.storage
    create_run(base, name="a-run", config={}, metadata={}, storage=fresh_storage)
    made = recorder.count
    mutate(recorder.storage)
    pulled(base, files, recorder.storage)
    moments = range(made, recorder.count + 1)
    for seed in range(max(cuts, len(moments))):
        count = recorder.count if seed % 3 == 0 else moments[seed % len(moments)]
        image = scratch / "image"
        recorder.image(count, random.Random(seed), image)
        try:
            there = whole(image, files)
            assert there or count < recorder.count, "it was told to be there"
            finished(image, files)
        except (AssertionError, PitstopError, OSError) as error:
            return f"after operation {count}: {error}"
        finally:
            shutil.rmtree(image)
    return None


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory:
        yield Path(directory)


def test_no_power_cut_leaves_half_a_run(files: Files, base: Path, scratch: Path, matrix: Matrix) -> None:
    cuts = IMAGES if matrix(AGAIN).is_full else 0  # each moment once
    assert broken_pull(base, files, scratch, cuts=cuts) is None


def no_file_is_synced(storage: Any) -> None:
    storage.sync_file = lambda descriptor: None


def no_directory_is_synced(storage: Any) -> None:
    storage.sync_directory = lambda path: None


def the_checkpoint_is_not_synced(storage: Any) -> None:
    real = storage.sync_directory
    storage.sync_directory = lambda path: None if path.name == "checkpoint-6" else real(path)


def the_run_is_not_synced(storage: Any) -> None:
    real = storage.sync_directory
    storage.sync_directory = lambda path: None if path.name.startswith("run") else real(path)


def the_place_of_the_run_is_not_synced(storage: Any) -> None:
    real = storage.sync_directory
    storage.sync_directory = lambda path: None if path.name == "base" else real(path)


@pytest.mark.parametrize(
    "mutate",
    [
        no_file_is_synced,
        no_directory_is_synced,
        the_checkpoint_is_not_synced,
        the_run_is_not_synced,
        the_place_of_the_run_is_not_synced,
    ],
    ids=lambda mutate: mutate.__name__,
)
def test_a_broken_protocol_is_caught(mutate: Callable[[Any], None], files: Files, base: Path, scratch: Path) -> None:
    assert broken_pull(base, files, scratch, mutate)
