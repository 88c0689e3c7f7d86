"""Room for checkpoints is looked for before anything is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.configs.errors import ResourceError
from pitstop.configs.schema import CheckpointSettings, Settings, TrainingSettings
from pitstop.trainers.machine.disk import check_room, checkpoint_bytes

MIB = 1 << 20


def _settings(tmp_path: Path, keep_last_n: int | None = 3) -> Settings:
    return Settings(training=TrainingSettings(checkpoint=CheckpointSettings(base_dir=str(tmp_path), keep_last_n=keep_last_n)))


@pytest.mark.parametrize(("optimizer", "size"), [("adamw", 1_000_000 * 12 + MIB), ("adamw_8bit", int(1_000_000 * 6.1) + MIB)])
def test_a_checkpoint_is_the_weights_and_the_optimizers_state(optimizer: str, size: int) -> None:
    assert checkpoint_bytes(1_000_000, optimizer) == size


@pytest.mark.parametrize(
    ("free", "keep", "said"),
    [(13, 3, "room for 1 checkpoints"), (60, 3, "room for 4 checkpoints"), (66, 3, None), (14, None, None)],
)
def test_too_little_room_for_what_is_to_be_kept_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, keep: int | None, said: str | None
) -> None:
    monkeypatch.setattr(LocalStorage, "free_space", lambda self, path: free * MIB)
    note = check_room(_settings(tmp_path, keep), MIB)  # a checkpoint of 13 MiB
    assert (note is None) if said is None else (said in str(note) and "--keep-last-n 3 needs up to 5" in str(note))


def test_no_room_for_one_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "free_space", lambda self, path: 12 * MIB)
    with pytest.raises(ResourceError, match=r"one takes about 13.* MiB, 12.* MiB are free") as raised:
        check_room(_settings(tmp_path), MIB)
    assert "pitstop prune" in str(raised.value.hint)
