"""A save that the disk refuses costs that checkpoint, not the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.forked import pitstop
from support.training import arguments, checkpoints, metadata

pytestmark = pytest.mark.usefixtures("warm")


def _full_for(saves: range) -> Callable[[], None]:
    """The disk has no room at the given saves, counted from 1."""

    def prepare() -> None:
        from pitstop.checkpointing.disk.storage import LocalStorage

        asked = 0

        def free_space(self: LocalStorage, path: Path) -> int:
            nonlocal asked
            if path.name != "lora_weights":  # the look before training
                return 1 << 40
            asked += 1
            return 0 if asked in saves else 1 << 40

        LocalStorage.free_space = free_space  # type: ignore[method-assign]

    return prepare


def test_one_full_disk_is_an_alarm_and_training_goes_on(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path), prepare=_full_for(range(1, 2)))
    assert ended.code == 0, ended.output
    assert "epoch_001 was not saved (1 of 3 misses in a row)" in ended.output
    assert "Training goes on" in ended.output
    assert checkpoints(tmp_path / "run_001") == ["epoch_002"]


def test_third_full_disk_in_a_row_ends_the_training_and_keeps_what_is_there(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, epochs=6), prepare=_full_for(range(2, 9)))
    assert ended.code == 6, ended.output
    assert "Traceback" not in ended.output
    run = tmp_path / "run_001"
    assert checkpoints(run) == ["epoch_001"]
    assert metadata(run)["status"] == "failed"
    assert not [path.name for path in (run / "lora_weights").iterdir() if path.name.startswith(".tmp")]
    ended = pitstop("resume", 1, "--base-dir", tmp_path)
    assert ended.code == 0, ended.output


def test_no_room_for_a_single_checkpoint_is_said_before_training_and_no_run_is_made(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    def prepare() -> None:
        from pitstop.checkpointing.disk.storage import LocalStorage

        LocalStorage.free_space = lambda self, path: 1000  # type: ignore[method-assign]

    ended = pitstop(*arguments(tiny_model, data, tmp_path), prepare=prepare)
    assert ended.code == 6, ended.output
    assert "no room for a single checkpoint" in ended.output and "step 1/" not in ended.output
    assert not (tmp_path / "run_001").exists()
