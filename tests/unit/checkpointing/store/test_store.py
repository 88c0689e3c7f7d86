from __future__ import annotations

import errno
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import read_verified
from pitstop.checkpointing.disk.manifest import NewerFormatError, sealed, unsealed
from pitstop.checkpointing.store.store import CheckpointFacts, CheckpointStore
from pitstop.configs.errors import CheckpointError
from support.stores import FILES, START, ForgetfulStorage, leftovers, save


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "lora_weights", ForgetfulStorage())


def names(store: CheckpointStore) -> list[str]:
    return [info.name for info in store.list()]


def test_what_is_written_is_listed_and_verified(store: CheckpointStore) -> None:
    info = save(store, 100, loss=0.5)
    assert (info.name, info.step, info.epoch, info.metrics) == ("checkpoint-100", 100, 10.0, {"val_loss": 0.5})
    assert info.size == sum(len(data) for data in FILES.values()) + 3 * len("100")
    assert info.saved_at == START + timedelta(seconds=100)
    assert store.list() == [info] == [store.verify("checkpoint-100")]
    assert read_verified(info, "state.json") == b"{}100"
    assert leftovers(store.directory) == []


def test_files_may_come_in_pieces_and_lie_in_directories(store: CheckpointStore) -> None:
    view = memoryview(bytearray(range(200))).cast("B", (10, 20))
    info = save(store, 1, files={"a/b/c.json": [b"one", bytearray(b"two"), memoryview(b"three")], "view": view, "empty": []})
    assert (info.path / "a" / "b" / "c.json").read_bytes() == b"onetwothree"
    assert (info.path / "view").read_bytes() == bytes(range(200))
    assert (info.path / "empty").read_bytes() == b""
    assert store.verify("checkpoint-1").size == 211


def test_a_big_buffer_is_written_whole(store: CheckpointStore) -> None:
    data = bytes(range(256)) * 40_000  # beyond two pieces
    info = save(store, 1, files={"big": [data]})
    assert read_verified(info, "big") == data


def test_the_order_is_by_step_and_not_by_name_or_time(store: CheckpointStore) -> None:
    for step in (100, 9, 20):
        save(store, step)
    assert names(store) == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert store.resolve("last").step == 100


def test_two_checkpoints_of_one_step_are_ordered_by_time(store: CheckpointStore) -> None:
    facts = CheckpointFacts(5, 1.0, {}, 1, {}, {}, START + timedelta(hours=1))
    store.write("epoch_001", {"a": b"1"}, facts)
    store.write("checkpoint-5", {"a": b"1"}, replace(facts, saved_at=datetime(2026, 1, 1, 12, 30, tzinfo=UTC)))
    assert names(store) == ["checkpoint-5", "epoch_001"]


def test_a_checkpoint_is_never_overwritten(store: CheckpointStore) -> None:
    save(store, 1)
    with pytest.raises(CheckpointError, match="never overwritten"):
        save(store, 1)
    store.verify("checkpoint-1")


@pytest.mark.parametrize(
    "name", ["epoch_1", "checkpoint-01", "last", "../checkpoint-1", "checkpoint-1\n", "epoch_٠٠١", "best", ""]
)
def test_other_names_are_refused(store: CheckpointStore, name: str) -> None:
    with pytest.raises(CheckpointError):
        save(store, 1, name=name or " ")


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "/a",
        "a/../b",
        "a\\b",
        "",
        ".",
        ".hidden",
        "a//b",
        "MANIFEST.json",
        "manifest.JSON",
        "con",
        "nul.txt",
        "a.",
        "é",
        "a\n",
    ],
)
def test_file_names_that_could_lead_astray_are_refused(store: CheckpointStore, name: str) -> None:
    with pytest.raises(CheckpointError):
        save(store, 1, files={name: b""})
    assert not store.directory.exists()


@pytest.mark.parametrize("pair", [("a", "A"), ("a", "a/b")])
def test_file_names_that_collide_are_refused(store: CheckpointStore, pair: tuple[str, str]) -> None:
    with pytest.raises(CheckpointError):
        save(store, 1, files=dict.fromkeys(pair, b""))


def test_what_serialising_raises_comes_through_and_leaves_nothing(store: CheckpointStore) -> None:
    def chunks() -> Any:
        yield b"some"
        raise RuntimeError("from the serialiser")

    with pytest.raises(RuntimeError, match="from the serialiser"):
        save(store, 1, files={"a": chunks()})
    assert list(store.directory.iterdir()) == []


def test_a_metric_that_is_not_finite_is_kept_as_unknown(store: CheckpointStore) -> None:
    save(store, 1, metrics={"val_loss": float("nan"), "train_loss": float("inf"), "steps": 3})
    assert store.resolve("last").metrics == {"val_loss": None, "train_loss": None, "steps": 3.0}


def test_best_follows_the_monitored_metric_and_the_first_of_equals(store: CheckpointStore) -> None:
    for step, loss in ((1, 0.9), (2, 0.4), (3, 0.4), (4, float("nan"))):
        save(store, step, loss=loss)
    assert store.resolve("best").step == 2
    assert CheckpointStore(store.directory, mode="max").resolve("best").step == 1


def test_best_goes_by_train_loss_where_the_monitored_metric_is_nowhere(store: CheckpointStore) -> None:
    for step, loss in ((1, 0.3), (2, 0.2), (3, 0.5)):
        save(store, step, metrics={"train_loss": loss})
    assert store.resolve("best").step == 2
    assert CheckpointStore(store.directory, monitor="f1", mode="max").resolve("best").step == 2


def test_best_without_any_metric_is_what_the_pointer_says(store: CheckpointStore) -> None:
    save(store, 1)
    save(store, 2)
    with pytest.raises(CheckpointError, match="no checkpoint has a metric"):
        store.resolve("best")
    store.set_pointer("best", "checkpoint-1")
    assert store.resolve("best").step == 1


def test_a_missing_checkpoint_says_what_there_is(store: CheckpointStore) -> None:
    save(store, 1)
    save(store, 2, name="epoch_001")
    with pytest.raises(CheckpointError, match=r"'checkpoint-7' not found in .*lora_weights") as raised:
        store.resolve("checkpoint-7")
    assert raised.value.hint == "there: checkpoint-1, epoch_001"
    assert store.resolve("epoch_1").name == "epoch_001"


def test_asking_for_a_damaged_checkpoint_says_so_and_names_whole_ones(store: CheckpointStore) -> None:
    save(store, 1)
    save(store, 2)
    (store.directory / "checkpoint-2" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"state\.json is missing") as raised:
        store.resolve("checkpoint-2")
    assert raised.value.hint == "whole ones: checkpoint-1"


@pytest.mark.parametrize("which", ["last", "best", "epoch_001"])
def test_an_empty_store_has_no_checkpoint(store: CheckpointStore, which: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        store.resolve(which)
    assert raised.value.hint == "there: none"
    assert store.list() == []
    assert store.recover().valid is None
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        store.recover().checkpoint()


def test_pointers_are_relative_links_that_move_in_one_step(store: CheckpointStore) -> None:
    save(store, 1)
    save(store, 2)
    store.set_pointer("last", "checkpoint-1")
    store.set_pointer("last", "checkpoint-2")
    assert (store.directory / "last").readlink() == Path("checkpoint-2")
    assert (store.directory / "last" / "state.json").read_bytes() == b"{}2"
    assert leftovers(store.directory) == []


@pytest.mark.parametrize(
    ("which", "name"), [("first", "checkpoint-1"), ("last", "checkpoint-2"), ("last", "../x"), ("last", "last")]
)
def test_pointers_point_at_checkpoints_only(store: CheckpointStore, which: str, name: str) -> None:
    save(store, 1)
    with pytest.raises(CheckpointError):
        store.set_pointer(which, name)


@pytest.mark.parametrize("error", [OSError(errno.EPERM, "no links here"), OSError(errno.ENOTSUP, "no"), NotImplementedError()])
def test_without_links_a_pointer_is_a_file_with_the_name(store: CheckpointStore, error: Exception) -> None:
    def symlink(target: str, path: Path) -> None:
        raise error

    save(store, 1)
    save(store, 2)
    store._storage.symlink = symlink  # type: ignore[method-assign]
    store.set_pointer("last", "checkpoint-1")
    store.set_pointer("last", "checkpoint-2")
    assert (store.directory / "last").read_text() == "checkpoint-2\n"
    assert store.pointer("last") == "checkpoint-2"
    assert store.recover().repaired == []


def test_retention_keeps_the_newest_the_best_and_the_protected(store: CheckpointStore) -> None:
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.4), (4, 0.3), (5, 0.6), (6, 0.7)):
        save(store, step, loss=loss)
    expected = ["checkpoint-1", "checkpoint-4"]
    assert [info.name for info in store.expendable(2, {"checkpoint-3"})] == expected
    assert len(names(store)) == 6
    assert store.prune(2, {"checkpoint-3"}) == expected
    assert names(store) == ["checkpoint-2", "checkpoint-3", "checkpoint-5", "checkpoint-6"]
    assert leftovers(store.directory) == []
    assert store.prune(2, {"checkpoint-3"}) == []


def test_retention_without_a_limit_keeps_all(store: CheckpointStore) -> None:
    for step in range(1, 10):
        save(store, step)
    assert store.prune(None) == []
    assert len(names(store)) == 9
    with pytest.raises(CheckpointError):
        store.prune(0)


def test_a_damaged_checkpoint_neither_counts_nor_goes(store: CheckpointStore) -> None:
    for step in (1, 2, 3):
        save(store, step)
    (store.directory / "checkpoint-3" / layout.MANIFEST).unlink()
    assert store.prune(1) == ["checkpoint-1"]
    assert names(store) == ["checkpoint-2"]
    assert (store.directory / "checkpoint-3").is_dir()


def test_retention_survives_a_checkpoint_that_refuses_to_go(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(ForgetfulStorage):
        def rename(self, source: Path, target: Path) -> None:
            if source.name == "checkpoint-1":
                raise OSError(errno.EBUSY, "in use")
            super().rename(source, target)

        def remove_directory(self, path: Path) -> None:
            if "checkpoint-2" in path.name:
                raise OSError(errno.EBUSY, "in use")
            super().remove_directory(path)

    for step in (1, 2, 3, 4):
        save(store, step)
    assert CheckpointStore(store.directory, Stubborn()).prune(1) == ["checkpoint-2", "checkpoint-3"]
    assert names(store) == ["checkpoint-1", "checkpoint-4"]
    assert "could not be removed" in caplog.text
    assert len(store.recover().dropped) == 1
    assert leftovers(store.directory) == []


def test_taking_up_an_older_checkpoint_sets_the_later_ones_aside(store: CheckpointStore) -> None:
    for step in (1, 2, 3):
        save(store, step, loss=1 / step)
    store.repair_pointers()
    assert store.supersede(1) == ["checkpoint-3", "checkpoint-2"]
    assert names(store) == ["checkpoint-1"]
    assert store.pointer("last") == store.pointer("best") == "checkpoint-1"
    save(store, 2)
    assert store.supersede(1) == ["checkpoint-2"]
    assert [path.name for path in store.set_aside(layout.SUPERSEDED)] == ["checkpoint-2", "checkpoint-2-2", "checkpoint-3"]
    assert store.supersede(1) == []


def test_foreign_files_are_left_alone(store: CheckpointStore) -> None:
    save(store, 1)
    (store.directory / "notes.txt").write_text("mine")
    (store.directory / "epoch_1").mkdir()
    store.recover(deep=True)
    assert (store.directory / "notes.txt").read_text() == "mine"
    assert names(store) == ["checkpoint-1"]


def test_a_newer_format_is_refused_by_name_and_never_set_aside(store: CheckpointStore) -> None:
    save(store, 1)
    save(store, 2)
    path = store.directory / "checkpoint-2" / layout.MANIFEST
    content = unsealed(path.read_bytes(), "there")
    path.write_bytes(sealed({**content, "format_version": 2, "pitstop_version": "7.1.0", "novelty": {}}))
    (store.directory / ".tmp-checkpoint-3-aa").mkdir()
    for action in (store.list, store.recover, lambda: store.verify("checkpoint-2"), lambda: store.resolve("last")):
        with pytest.raises(NewerFormatError, match=r"written by pitstop 7\.1\.0 in format 2"):
            action()
    assert (store.directory / "checkpoint-2").is_dir()
    assert (store.directory / ".tmp-checkpoint-3-aa").is_dir()


def test_reading_a_file_checks_it_before_anyone_parses_it(store: CheckpointStore) -> None:
    info = save(store, 1)
    (info.path / "state.json").write_bytes(b"{}2")
    with pytest.raises(CheckpointError, match="changed since it was saved"):
        read_verified(info, "state.json")
    with pytest.raises(CheckpointError, match="missing from the manifest"):
        read_verified(info, "../checkpoint-1/state.json")


def test_reading_goes_on_while_retention_moves_things_away(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, 1)
    save(store, 2)
    monkeypatch.setattr(store, "names", lambda: ["checkpoint-1", "checkpoint-2", "checkpoint-3"])
    assert names(store) == ["checkpoint-1", "checkpoint-2"]
