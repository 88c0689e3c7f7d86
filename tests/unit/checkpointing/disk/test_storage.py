from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.storage import LocalStorage, atomic_write, file_sha256, make_directories, read_regular_file
from support.stores import OPERATIONS, HookedStorage


@pytest.fixture
def storage() -> LocalStorage:
    return LocalStorage()


def test_a_new_file_is_recorded_as_it_lies_there(storage: LocalStorage, tmp_path: Path) -> None:
    record = storage.write_file(tmp_path / "a", [b"one", b"two"])
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert (record.size, record.sha256) == (6, hashlib.sha256(b"onetwo").hexdigest())
    assert file_sha256(tmp_path / "a") == record.sha256


def test_an_existing_file_or_link_is_never_written_through(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"safe")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("target", "link", "dangling"):
        with pytest.raises(FileExistsError):
            storage.write_file(tmp_path / name, b"evil")
    assert (tmp_path / "target").read_bytes() == b"safe"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_rename_never_takes_an_existing_name(storage: LocalStorage, tmp_path: Path, kind: str) -> None:
    (tmp_path / "source").mkdir()
    target = tmp_path / "target"
    {"file": target.touch, "directory": target.mkdir, "link": lambda: target.symlink_to("nowhere")}[kind]()
    with pytest.raises(FileExistsError):
        storage.rename(tmp_path / "source", target)
    assert (tmp_path / "source").is_dir()


def test_removing_a_tree_does_not_follow_links(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "link").symlink_to(tmp_path / "outside")
    storage.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "outside" / "kept").exists()


def test_an_atomic_write_replaces_and_syncs_in_this_order(tmp_path: Path) -> None:
    seen: list[str] = []
    storage = HookedStorage(before=lambda name, _: seen.append(name))
    (tmp_path / "a").write_bytes(b"old")
    atomic_write(storage, tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert seen == ["create", "write", "sync_file", "close", "replace", "sync_directory"]
    assert set(seen) <= set(OPERATIONS)


def test_missing_parents_are_made_and_synced(tmp_path: Path) -> None:
    synced: list[Path] = []
    storage = HookedStorage(before=lambda name, arguments: synced.append(arguments[0]) if name == "sync_directory" else None)
    make_directories(storage, tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    make_directories(storage, tmp_path / "a" / "b" / "c")
    assert len(synced) == 3


def test_reading_takes_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert read_regular_file(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        read_regular_file(tmp_path / "file", limit=4)
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError):
            read_regular_file(tmp_path / name)
