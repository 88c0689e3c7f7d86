"""Settings in ``.env`` are for new runs: commands for runs that exist take the directory and the token from there, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import Cli


@pytest.fixture(autouse=True)
def _for_new_runs() -> None:
    Path(".env").write_text("PITSTOP_MODEL_CONFIG=small.json\nMAX_LENGTH=0\nOUTPUT_DIR=elsewhere\n")


@pytest.mark.parametrize("words", [["--run-number", "7"], ["7"]])
def test_a_resume_looks_where_they_say_and_minds_no_other(pitstop: Cli, words: list[str]) -> None:
    ended = pitstop("resume", *words)
    assert ended.code == 2
    assert f"run '7' not found: there are no runs in {Path.cwd() / 'elsewhere'}" in ended.stderr


def test_a_flag_says_where_before_they_do(pitstop: Cli) -> None:
    assert f"there are no runs in {Path.cwd() / 'there'}" in pitstop("resume", "7", "--base-dir", "there").stderr


def test_a_number_that_is_none_is_named(pitstop: Cli) -> None:
    ended = pitstop("resume", "--run-number", "0")
    assert ended.code == 2 and "--run-number" in ended.stderr and "elsewhere" not in ended.stderr


def test_a_pull_minds_none_of_them(pitstop: Cli) -> None:
    ended = pitstop("pull", "owner/name")
    assert ended.code == 5, ended.stderr  # tests are offline
