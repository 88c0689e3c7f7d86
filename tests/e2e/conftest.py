"""A copy of a trained run for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A copy of the base directory of the run that the module's fixture ``trained`` gives."""
    shutil.copytree(trained / "runs", tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"
