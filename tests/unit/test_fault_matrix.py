"""The fault matrix counts the same whether one process runs its tests or several do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLED, TMPFS, GOLDEN = (
    "SIGKILL at a random moment of a saving process",
    "a real full tmpfs",
    "golden checkpoints of each released format version",
)
TESTS = f"""
import os

import pytest


def test_two_trials(matrix):
    row = matrix({KILLED!r})
    for number in range(2):
        with row.trial(str(number)):
            pass


def test_one_of_two_trials_is_broken(matrix):
    with matrix({KILLED!r}).trial():
        raise ValueError("broken on purpose")


@pytest.mark.fault_row({GOLDEN!r})
def test_a_whole_test_is_a_trial():
    pass


def test_what_cannot_be_run(matrix):
    matrix({TMPFS!r}).not_run("no privilege to mount")


@pytest.mark.skipif("DIE" not in os.environ, reason="not asked to")
def test_the_process_dies():
    os._exit(1)
"""


def summary(directory: Path, *options: str, **environment: str) -> str:
    """What pytest prints for two files with these tests."""
    for name in ("test_one.py", "test_other.py"):
        (directory / name).write_text(TESTS)
    plugins = ["-p", "xdist", "-p", "support.fault_matrix", "-p", "no:cacheprovider", "-o", "markers=fault_row(fault): a trial"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "--color=no", "--rootdir", str(directory), *plugins, *options, str(directory)],
        env={
            **_without_xdist(),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **environment,
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def _without_xdist() -> dict[str, str]:
    """This process may be one of several itself, and says so to its children."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def row(printed: str, fault: str) -> str:
    """The line of a row, without the time that it took."""
    (line,) = (line for line in printed.splitlines() if line.startswith(fault))
    return re.sub(r" +", " ", re.sub(r"[\d.]+ s", "", line.removeprefix(fault))).strip()


@pytest.mark.parametrize("options", [(), ("-n", "2", "--dist", "loadfile")], ids=["one process", "two processes"])
def test_the_table_sums_what_all_processes_tried(options: tuple[str, ...], tmp_path: Path) -> None:
    printed = summary(tmp_path, *options)
    assert row(printed, KILLED) == "6 tried 4 held BROKEN"
    assert row(printed, GOLDEN) == "2 tried 2 held"
    assert row(printed, TMPFS) == "0 tried 0 held not run: no privilege to mount"
    assert "which died" not in printed


def test_a_process_that_died_took_its_counts_with_it_and_the_table_says_so(tmp_path: Path) -> None:
    printed = summary(tmp_path, "-n", "1", DIE="1")
    assert "without what gw0" in printed and "counted, which died" in printed
