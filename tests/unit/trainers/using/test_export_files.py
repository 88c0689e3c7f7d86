"""An export is there whole or not at all, and harms nothing that was there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.configs.errors import ResourceError, SettingsError
from pitstop.trainers.using.export_files import MARKER, check_room, check_target, in_place_of


def write(directory: Path, text: str) -> None:
    directory.mkdir()
    (directory / "file").write_text(text)
    (directory / MARKER).write_text("{}")


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), ValueError("x"), OSError(errno.ENOSPC, "full")])
def test_whatever_ends_it_early_leaves_what_was_there(tmp_path: Path, error: BaseException, there: bool) -> None:
    target = tmp_path / "out"
    if there:
        write(target, "old")
    raised = ResourceError if isinstance(error, OSError) else type(error)
    with pytest.raises(raised), in_place_of(target) as temporary:
        write(temporary, "new")
        assert temporary.parent == tmp_path and temporary != target
        raise error
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])
    assert not there or (target / "file").read_text() == "old"


def test_a_directory_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with in_place_of(tmp_path / "out") as temporary:
            write(temporary, text)
        assert (tmp_path / "out" / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_earlier_one_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    real = LocalStorage.rename

    def rename(self: LocalStorage, source: Path, target: Path) -> None:
        if source.name.startswith(".tmp-"):
            raise OSError(errno.EIO, "input/output error")
        real(self, source, target)

    monkeypatch.setattr(LocalStorage, "rename", rename)
    with pytest.raises(ResourceError, match="input/output error"), in_place_of(tmp_path / "out") as temporary:
        write(temporary, "new")
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_every_file_and_directory_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = LocalStorage.replace
    monkeypatch.setattr(LocalStorage, "sync_file", lambda self, descriptor: done.append("file"))
    monkeypatch.setattr(LocalStorage, "sync_directory", lambda self, path: done.append("directory"))
    monkeypatch.setattr(LocalStorage, "replace", lambda self, *paths: (done.append("rename"), real(self, *paths))[1])
    with in_place_of(tmp_path / "out") as temporary:
        write(temporary, "new")
    assert done == ["file", "file", "directory", "rename", "directory"]


def test_files_are_as_readable_as_the_users_other_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with in_place_of(tmp_path / "out") as temporary:
            write(temporary, "new")
            (temporary / "file").chmod(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "out" / "file").stat().st_mode & 0o777 == 0o644


def test_a_place_that_is_taken_is_refused_and_only_an_export_is_replaced(tmp_path: Path) -> None:
    run, out = tmp_path / "run_001", tmp_path / "out"
    run.mkdir()
    check_target(out, run, directory=True, force=False)
    write(out, "old")
    with pytest.raises(SettingsError, match="exists"):
        check_target(out, run, directory=True, force=False)
    check_target(out, run, directory=True, force=True)
    (out / MARKER).unlink()
    with pytest.raises(SettingsError, match="not an export of Pitstop"):
        check_target(out, run, directory=True, force=True)
    with pytest.raises(SettingsError, match="is a directory"):
        check_target(out, run, directory=False, force=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="is no directory"):
        check_target(tmp_path / "file", run, directory=True, force=True)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(SettingsError, match="does not replace it"):
        check_target(tmp_path / "link", run, directory=True, force=True)


def test_a_place_in_the_run_or_in_no_directory_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run_001"
    run.mkdir()
    for target in (run, run / "lora_weights", run / ".." / "run_001" / "x"):
        with pytest.raises(SettingsError, match="lies in the run"):
            check_target(target, run, directory=True, force=True)
    with pytest.raises(SettingsError, match="no directory"):
        check_target(tmp_path / "missing" / "out", run, directory=True, force=False)


def test_a_full_disk_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "free_space", lambda self, path: 1000)
    check_room(tmp_path / "out", 1000)
    with pytest.raises(ResourceError, match="takes about 1001 B; 1000 B are free"):
        check_room(tmp_path / "out", 1001)
