from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory for runs, which is not there yet."""
    return tmp_path / "checkpoints"
