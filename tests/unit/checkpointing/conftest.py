from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.card import curve
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.fake_hub import FakeHub, new_run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is not drawn for real, which takes a third of a second."""
    monkeypatch.setattr(curve, "loss_curve", lambda rows, title: b"a picture")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run without checkpoints."""
    return new_run(tmp_path / "runs")


@pytest.fixture
def hub() -> FakeHub:
    """A Hub in memory, empty."""
    return FakeHub()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory for runs, which is not there yet."""
    return tmp_path / "checkpoints"
