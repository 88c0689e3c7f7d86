"""An environment as launchers make it."""

from __future__ import annotations

import pytest


def one_of_two(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Make this process the one with ``rank`` of two that a launcher started."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
