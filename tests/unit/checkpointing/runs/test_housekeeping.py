from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import inspection, layout, locking
from pitstop.checkpointing.runs import housekeeping, name_links
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.housekeeping import delete_run, prunable, prune_bases, prune_deleted, prune_run, unused_bases
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import CheckpointFacts
from pitstop.configs.errors import CheckpointError, RunError
from support.housekeeping import DIGEST, UNUSED, checkpoints, config, litter, make_run, names, place_base
from support.stores import FILES, ForgetfulStorage, HookedStorage


def reopened(run: RunDirectory) -> RunDirectory:
    return RunDirectory(run.path, ForgetfulStorage())


# What prune would free


def test_what_prune_would_free_is_what_it_frees(tmp_path: Path) -> None:
    run = make_run(tmp_path, resumed_from=3)
    (run.store.directory / ".tmp-checkpoint-6-aa").mkdir()
    (run.store.directory / ".tmp-checkpoint-6-aa" / "half").write_bytes(b"x" * 77)
    (run.path / ".tmp-metadata.json-bb").write_bytes(b"x" * 11)
    before = housekeeping.freed_bytes([run.path])
    plan = prunable(run, 1)
    assert plan.checkpoints == ["checkpoint-1", "checkpoint-4"]
    assert names(run) == checkpoints(1, 2, 3, 4, 5), "nothing happened yet"
    metadata = (run.path / "metadata.json").stat().st_size
    outcome = prune_run(run, 1)
    assert [item.path for item in outcome.removed] == [item.path for item in plan.removed]
    freed = before - housekeeping.freed_bytes([run.path])
    # Its list of checkpoints is shorter now, and the lock has a word in it.
    freed -= metadata - (run.path / "metadata.json").stat().st_size - (run.path / layout.LOCK).stat().st_size
    assert outcome.size == plan.size == freed


def test_asking_what_prune_would_free_needs_no_lock_and_hashes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    monkeypatch.setattr(inspection, "file_sha256", lambda path: pytest.fail(f"{path} was hashed"))
    monkeypatch.setattr(inspection, "verify", lambda path: pytest.fail(f"{path} was hashed"))
    with run.lock():
        assert prunable(run, 2).checkpoints == ["checkpoint-1", "checkpoint-3"]
    assert prunable(run, None).checkpoints == []


def test_a_file_that_has_a_name_elsewhere_frees_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"x" * 100)
    os.link(tmp_path / "a" / "one", tmp_path / "a" / "two")
    assert housekeeping.freed_bytes([tmp_path / "a"]) == 100
    os.link(tmp_path / "a" / "one", tmp_path / "elsewhere")
    assert housekeeping.freed_bytes([tmp_path / "a"]) == 0
    assert housekeeping.freed_bytes([tmp_path / "a", tmp_path / "elsewhere"]) == 100


# Pruning a run


def test_pruning_keeps_the_newest_and_the_pinned_and_corrects_the_metadata(tmp_path: Path) -> None:
    run = make_run(tmp_path, resumed_from=3)
    prune_run(run, 1)
    assert names(run) == checkpoints(2, 3, 5)
    assert [entry.name for entry in run.metadata().checkpoints] == checkpoints(2, 3, 5)
    assert prune_run(run, 1).removed == []


def test_nothing_is_pruned_while_a_checkpoint_that_would_stay_is_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    path = run.store.directory / "checkpoint-5" / "state.json"
    path.write_bytes(path.read_bytes()[::-1])
    for dry_run in (True, False):
        with pytest.raises(CheckpointError, match=r"checkpoint-5 is damaged: state\.json changed"):
            prune_run(run, 1, dry_run=dry_run)
    assert run.store.names() == checkpoints(1, 2, 3, 4, 5)


def test_nothing_is_pruned_while_nobody_knows_what_must_stay(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    config_text = (run.path / "config.json").read_text()
    (run.path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        prune_run(reopened(run), 1)
    (run.path / "config.json").write_text(config_text)
    (run.path / "metadata.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"metadata\.json: damaged"):
        prune_run(reopened(run), 1)
    assert names(run) == checkpoints(1, 2, 3, 4, 5)


def test_damaged_checkpoints_are_neither_counted_nor_deleted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.store.directory / "checkpoint-5" / "state.json").unlink()
    run.store.set_pointer("last", "checkpoint-4")
    prune_run(run, 1)
    assert run.store.names() == checkpoints(2, 4, 5)


def test_what_was_set_aside_goes_only_when_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.store.supersede(4)
    (run.store.directory / "checkpoint-1" / "state.json").unlink()
    run.store.recover()
    prune_run(run, None)
    aside = [layout.DAMAGED, layout.SUPERSEDED]
    assert [path.name for where in aside for path in run.store.set_aside(where)] == checkpoints(1, 5)
    outcome = prune_run(run, None, set_aside=True)
    assert [item.name for item in outcome.removed] == [".damaged (checkpoint-1)", ".superseded (checkpoint-5)"]
    assert outcome.size > 3000
    assert not any((run.store.directory / where).exists() for where in aside)
    assert names(run) == checkpoints(2, 3, 4)


def test_a_run_that_is_being_set_up_is_left_alone(tmp_path: Path) -> None:
    run = create_run(tmp_path, name="new", config=config(), metadata={}, storage=ForgetfulStorage())
    (run.path / ".tmp-base_model-aa").mkdir()
    assert prunable(run, 1).removed == []


# Base models


def test_a_base_stays_as_long_as_a_run_refers_to_it_by_any_record(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    place_base(tmp_path, UNUSED)
    assert [item.name for item in unused_bases(tmp_path)] == [UNUSED]
    assert [item.name for item in unused_bases(tmp_path, without=run.label)] == [DIGEST, UNUSED]
    metadata = dict(run.metadata().content)
    (run.path / "metadata.json").unlink()
    assert [item.name for item in unused_bases(tmp_path)] == [UNUSED], "it has the links"
    ForgetfulStorage().remove_tree(run.path / "base_model")
    assert [item.name for item in unused_bases(tmp_path)] == [DIGEST, UNUSED]
    (run.path / "base_model.json").write_text(json.dumps({"digest": DIGEST}))
    assert [item.name for item in unused_bases(tmp_path)] == [UNUSED], "it has the reference"
    (run.path / "base_model.json").unlink()
    (run.path / "metadata.json").write_text(json.dumps(metadata))
    assert [item.name for item in unused_bases(tmp_path)] == [UNUSED], "its metadata says so"
    metadata["base_model"]["saved"] = False
    (run.path / "metadata.json").write_text(json.dumps(metadata))
    assert [item.name for item in unused_bases(tmp_path)] == [DIGEST, UNUSED], "it never used the copy"


def test_where_the_metadata_is_lost_the_checkpoints_tell_which_base_is_needed(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=False, steps=())
    place_base(tmp_path)
    run.store.write("checkpoint-1", FILES, CheckpointFacts(1, 1.0, {}, 1, {"base": DIGEST}, {}, datetime.now(UTC)))
    assert [item.name for item in unused_bases(tmp_path)] == [DIGEST]
    (run.path / "metadata.json").write_text("damaged")
    assert unused_bases(tmp_path) == []


def test_what_a_newer_pitstop_or_someone_else_put_beside_the_bases_stays(tmp_path: Path) -> None:
    models = place_base(tmp_path, UNUSED)
    manifest = models.path(UNUSED) / "BASE_MANIFEST.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "format_version": 99}))
    (models.directory / "notes-of-my-own").mkdir()
    assert unused_bases(tmp_path) == []


@pytest.fixture
def placed(tmp_path: Path) -> Iterator[BaseModels]:
    """A base that this process has placed, for a run that it is about to start."""
    models = place_base(tmp_path)
    yield models
    locking.release(models.directory / ".starting.lock")


def test_a_base_that_a_training_is_about_to_use_stays(placed: BaseModels, tmp_path: Path) -> None:
    for dry_run in (True, False):
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} "):
            prune_bases(tmp_path, dry_run=dry_run)
    run = make_run(tmp_path)  # links it, which ends the wait
    assert prune_bases(tmp_path).removed == []
    delete_run(run)
    assert [item.name for item in prune_bases(tmp_path, dry_run=True).removed] == [f".base_models/{DIGEST}"]
    outcome = prune_bases(tmp_path)
    assert outcome.size > 3000 and not placed.path(DIGEST).exists()


# Deleting


def test_a_deleted_run_is_gone_with_its_name_and_its_number_is_free(tmp_path: Path) -> None:
    kept, run = make_run(tmp_path, "first"), make_run(tmp_path, "second")
    size = housekeeping.freed_bytes([run.path])
    assert delete_run(run) - size < 200  # the lock's word
    assert [record.name for record in list_runs(tmp_path)] == ["first"]
    assert sorted(path.name for path in (tmp_path / "by-name").iterdir()) == [".lock", "first"]
    assert litter(tmp_path) == []
    assert BaseModels(tmp_path).base_path(kept.path) == kept.path / "base_model"
    assert make_run(tmp_path, "second").label == "run_002"


def test_a_base_training_is_deleted_with_its_name(tmp_path: Path) -> None:
    lora, run = make_run(tmp_path, "lora"), make_run(tmp_path, "full", group="base_training", base=False)
    delete_run(run)
    assert [record.run for record in list_runs(tmp_path)] == [lora.label]
    assert not (tmp_path / "by-name" / "full").is_symlink()


def test_a_run_in_use_is_not_deleted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with run.lock(), pytest.raises(RunError, match=f"in use by process {os.getpid()} "):
        delete_run(reopened(run))
    assert names(run) == checkpoints(1, 2, 3, 4, 5)


def test_a_linked_run_directory_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "elsewhere")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "run_001").symlink_to(run.path)
    with pytest.raises(RunError, match="is a link to"):
        delete_run(RunDirectory(tmp_path / "base" / "run_001"))
    assert names(run)


def test_a_process_that_waited_for_the_lock_of_a_run_learns_that_it_was_deleted(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    said: list[str] = []

    def wait() -> None:
        try:
            with locking.exclusive(run.path / layout.LOCK, "run_001", patience_s=30):
                said.append("got it")
        except RunError as error:
            said.append(error.message)

    with run.lock():
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        run.path.rename(tmp_path / ".trash-run_001-aa")
        make_run(tmp_path, "another")
    waiting.join()
    assert said == ["run_001 was deleted by another process just now"]


def test_a_full_disk_does_not_keep_anyone_from_taking_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(locking.os, "write", full)
    delete_run(run)
    assert list_runs(tmp_path) == []


def test_a_run_that_starts_while_another_is_deleted_gets_its_number_and_its_name_for_good(tmp_path: Path) -> None:
    run = make_run(tmp_path, "same")
    starting: list[threading.Thread] = []

    def start_another(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "unlink" and arguments[0].parent.name == layout.BY_NAME:
            starting.append(threading.Thread(target=make_run, args=(tmp_path, "same"), kwargs={"steps": (), "base": False}))
            starting[0].start()
            time.sleep(0.3)

    delete_run(RunDirectory(run.path, HookedStorage(before=start_another)))
    starting[0].join()
    assert [(record.run, record.name) for record in list_runs(tmp_path)] == [("run_001", "same")]
    assert name_links.target(tmp_path / "by-name" / "same") == "../run_001"


# After a crash


def crashed_deletion(tmp_path: Path, name: str = "gone") -> Path:
    """What a deletion leaves that dies right after its first step."""
    run = make_run(tmp_path, name)
    trash = run.path.with_name(f".trash-{run.path.name}-0011")
    run.path.rename(trash)
    return trash


def test_a_new_run_gets_the_number_and_never_the_name_of_one_whose_deletion_died(tmp_path: Path) -> None:
    crashed_deletion(tmp_path)
    assert list_runs(tmp_path) == []
    with pytest.raises(RunError):
        locate(tmp_path, "gone")[0]
    run = make_run(tmp_path, "new")
    assert run.label == "run_001"
    with pytest.raises(RunError):
        locate(tmp_path, "gone")[0]
    assert locate(tmp_path, "new")[0].label == "run_001"
    (run.path / "metadata.json").unlink()
    assert run.rebuild_metadata().name == "new"


@pytest.mark.parametrize("ref", ["1", "run_001", "gone", "{base}/run_001"])
def test_leftovers_of_a_deletion_are_known_by_any_name_of_the_run_and_go(tmp_path: Path, ref: str) -> None:
    trash = crashed_deletion(tmp_path)
    ref = ref.format(base=tmp_path)
    assert housekeeping.left_of_deletion(tmp_path, ref)
    assert not housekeeping.left_of_deletion(tmp_path, "2") and not housekeeping.left_of_deletion(tmp_path, "other")
    dry = prune_deleted(tmp_path, dry_run=True)
    outcome = prune_deleted(tmp_path)
    assert [item.name for item in dry.removed] == [item.name for item in outcome.removed] == [trash.name, "by-name/gone"]
    assert dry.size == outcome.size > 10_000
    assert not housekeeping.left_of_deletion(tmp_path, ref)
    assert litter(tmp_path) == []


def test_the_name_of_a_deleted_run_is_still_known_after_its_entry_went(tmp_path: Path) -> None:
    crashed_deletion(tmp_path)
    (tmp_path / "by-name" / "gone").unlink()
    assert housekeeping.left_of_deletion(tmp_path, "gone")


def test_a_deletion_that_is_going_on_is_not_disturbed(tmp_path: Path) -> None:
    trash = crashed_deletion(tmp_path)
    with locking.exclusive(trash / layout.LOCK, "run_001"):
        assert [item.name for item in prune_deleted(tmp_path).removed] == ["by-name/gone"]
    assert (trash / "config.json").exists()


def test_the_lock_of_a_deletion_goes_last_so_that_nobody_takes_it_for_abandoned(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    seen: list[int] = []

    def look(name: str, arguments: tuple[Any, ...]) -> None:
        if (
            name in ("unlink", "remove_directory")
            and arguments[0].name != layout.LOCK
            and ".trash-run_001" in str(arguments[0].parent)
        ):
            seen.append(len(prune_deleted(tmp_path).removed))

    delete_run(RunDirectory(run.path, HookedStorage(before=look)))
    assert len(seen) > 10 and set(seen) == {0}


def test_entries_that_lead_to_a_run_or_were_made_by_someone_else_stay(tmp_path: Path) -> None:
    make_run(tmp_path, "kept")
    (tmp_path / "by-name" / "mine").symlink_to("/somewhere/else")
    (tmp_path / "by-name" / "readme.txt").write_text("hello")
    assert prune_deleted(tmp_path).removed == []
    assert sorted(path.name for path in (tmp_path / "by-name").iterdir()) == [".lock", "kept", "mine", "readme.txt"]
