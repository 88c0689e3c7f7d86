"""What stands in the way of a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.configs.paths import obstacle


@pytest.fixture(autouse=True)
def _places() -> None:
    Path("dangling").symlink_to("nowhere/at/all")
    Path("file").touch()
    Path("to-file").symlink_to("file")
    Path("loop").symlink_to("loop")
    Path("directory").mkdir()
    Path("to-directory").symlink_to("directory")


@pytest.mark.parametrize(
    ("directory", "told"),
    [
        ("dangling", "dangling is a link to nowhere/at/all, which is not there"),
        ("dangling/runs", "dangling is a link to nowhere/at/all, which is not there"),
        ("file", "file is a file"),
        ("file/deep/runs", "file is a file"),
        ("to-file", "to-file is a link to file, which is no directory"),
        ("loop/runs", "loop is a link to loop, which is not there"),
        ("directory", None),
        ("to-directory", None),
        ("to-directory/new/runs", None),
        ("new/runs", None),
    ],
)
def test_what_stands_in_the_way_is_named(directory: str, told: str | None) -> None:
    assert obstacle(Path(directory)) == told
