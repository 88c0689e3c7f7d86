from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.pointers import read_pointer, write_pointer
from support.stores import ForgetfulStorage


class NoLinks(ForgetfulStorage):
    def symlink(self, target: str, path: Path) -> None:
        raise OSError(errno.EPERM, "no links")


@pytest.mark.parametrize("storage", [ForgetfulStorage(), NoLinks()], ids=["links", "files"])
def test_a_pointer_holds_the_name_that_was_written_last(tmp_path: Path, storage: ForgetfulStorage) -> None:
    path = tmp_path / "best"
    assert read_pointer(path) is None
    for name in ("epoch_001", "checkpoint-20"):
        write_pointer(storage, path, name)
        assert read_pointer(path) == name
        assert path.is_symlink() == (type(storage) is ForgetfulStorage)
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("text", ["../run_002/lora_weights/epoch_001", "/etc/passwd", "epoch_1", "", "ä"])
def test_a_pointer_to_anything_but_a_checkpoint_holds_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "last").write_text(text, encoding="utf-8")
    assert read_pointer(tmp_path / "last") is None
    if text:
        (tmp_path / "best").symlink_to(text)
        assert read_pointer(tmp_path / "best") is None


def test_an_error_of_the_disk_passes_through(tmp_path: Path) -> None:
    class Full(ForgetfulStorage):
        def symlink(self, target: str, path: Path) -> None:
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        write_pointer(Full(), tmp_path / "last", "epoch_001")
    assert list(tmp_path.iterdir()) == []
