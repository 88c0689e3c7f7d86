from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pitstop.checkpointing.disk import locking
from pitstop.configs.errors import RunError
from support.stores import in_child


def test_the_holder_of_a_lock_is_named_to_others(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert not locking.is_locked(path)
    with locking.exclusive(path, "run_001", {"command": "train"}):
        assert locking.is_locked(path)
        owner = locking.owner_of(path)
        assert owner is not None
        assert (owner["pid"], owner["command"]) == (os.getpid(), "train")
        message = rf"run_001 is in use by process {os.getpid()} on "
        with pytest.raises(RunError, match=message), locking.exclusive(path, "run_001", patience_s=0.0):
            pass
    assert not locking.is_locked(path)


def test_a_lock_cannot_be_had_where_its_file_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run_001 cannot be locked"), locking.exclusive(tmp_path / "missing/.lock", "run_001"):
        pass


def test_a_lock_whose_file_was_replaced_meanwhile_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".lock"
    take = locking._take

    def replaced_meanwhile(*arguments: object, **options: object) -> None:
        take(*arguments, **options)  # type: ignore[arg-type]
        path.unlink()
        path.touch()

    monkeypatch.setattr(locking, "_take", replaced_meanwhile)
    with pytest.raises(RunError, match="run_001 was deleted by another process just now"), locking.exclusive(path, "run_001"):
        pass


def test_a_shared_lock_is_had_by_many_and_refused_to_one_alone(tmp_path: Path) -> None:
    path = tmp_path / ".starting.lock"
    locking.share(path, "the store")
    locking.share(path, "the store")

    def share_and_want_it_alone() -> None:
        locking.share(path, "the store")
        try:
            with locking.exclusive(path, "the store", patience_s=0.0):
                os._exit(1)
        except RunError:
            os._exit(0)

    assert in_child(share_and_want_it_alone) == 0
    locking.release(path)
    with locking.exclusive(path, "the store", patience_s=0.0):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", json.dumps("text").encode()])
def test_an_owner_that_cannot_be_read_is_unknown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    assert locking.owner_of(tmp_path / ".lock") == {}
