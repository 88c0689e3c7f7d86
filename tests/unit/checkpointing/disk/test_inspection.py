from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.disk import inspection
from pitstop.checkpointing.disk.inspection import DamagedError
from pitstop.checkpointing.store.store import CheckpointStore
from support.stores import FILES, ForgetfulStorage, save


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(CheckpointStore(tmp_path, ForgetfulStorage()), 3, loss=0.5).path


def test_a_whole_checkpoint_is_known_by_its_manifest(checkpoint: Path) -> None:
    info = inspection.verify(checkpoint)
    assert info == inspection.inspect(checkpoint)
    assert (info.name, info.step, info.metrics, set(info.manifest.files)) == ("checkpoint-3", 3, {"val_loss": 0.5}, set(FILES))
    assert info.size == sum((checkpoint / name).stat().st_size for name in FILES)
    assert inspection.read_verified(info, "state.json") == b"{}3"


def test_shapes_are_checked_without_hashing_and_contents_with_it(checkpoint: Path) -> None:
    path = checkpoint / "state.json"
    path.write_bytes(b"{]3")  # as long as before
    assert inspection.inspect(checkpoint).step == 3
    with pytest.raises(DamagedError, match=r"state\.json changed since it was saved"):
        inspection.verify(checkpoint)
    with pytest.raises(DamagedError, match=r"state\.json: changed since it was saved"):
        inspection.read_verified(inspection.inspect(checkpoint), "state.json")


def test_every_difference_is_named_up_to_five(checkpoint: Path) -> None:
    (checkpoint / "state.json").unlink()
    (checkpoint / "optimizer.safetensors").write_bytes(b"short")
    (checkpoint / "extra\x1b.txt").touch()
    (checkpoint / ".DS_Store").touch()
    with pytest.raises(DamagedError) as caught:
        inspection.inspect(checkpoint)
    for problem in ("state.json is missing", "optimizer.safetensors has 5 bytes instead of ", "is not part of it"):
        assert problem in caught.value.message
    assert "\x1b" not in caught.value.message and "DS_Store" not in caught.value.message
    for number in range(6):
        (checkpoint / f"more-{number}").touch()
    with pytest.raises(DamagedError, match=r"; and 4 more$"):
        inspection.inspect(checkpoint)


def test_a_directory_under_another_name_or_behind_a_link_is_no_checkpoint(checkpoint: Path) -> None:
    other = checkpoint.with_name("checkpoint-4")
    other.symlink_to(checkpoint.name)
    with pytest.raises(DamagedError, match="not a directory of its own"):
        inspection.read_manifest(other)
    other.unlink()
    checkpoint.rename(other)
    with pytest.raises(DamagedError, match="this is the manifest of checkpoint-3"):
        inspection.inspect(other)


def test_a_file_with_two_names_counts_once_and_links_count_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/a").write_bytes(bytes(100))
    (tmp_path / "b").hardlink_to(tmp_path / "deep/er/a")
    (tmp_path / "c").write_bytes(bytes(7))
    (tmp_path / "link").symlink_to("/")
    assert inspection.tree_size(tmp_path) == 107
    assert len(list(inspection.tree_files(tmp_path))) == 3
    assert inspection.tree_size(tmp_path / "c") == 7
    assert inspection.tree_size(tmp_path / "missing") == 0
