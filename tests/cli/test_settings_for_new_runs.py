"""Settings in ``.env`` are for new runs: commands for runs that exist take the directory and the token from there, and nothing else."""

from __future__ import annotations

import shutil
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--resume", "--dry-run"], "--dry-run shows the plan of a new run, and --resume continues one."),
        (["train", "--resume-from-run", "1", "--config", "demo"], "--resume-from-run takes no --config"),
        (["train", "--resume", "--config", "demo"], "--resume takes no --config"),
        (["resume", "1", "--num-processes", "two"], "--num-processes: 'two' is not a whole number"),
    ],
)
def test_what_a_resume_cannot_do_is_refused_before_anything_starts(
    words: list[str], message: str, pitstop: Cli, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(repository / "tests/golden/exact-1", "home", symlinks=True)
    monkeypatch.chdir("home")
    before = Path("runs/run_001/metadata.json").read_bytes()
    done = pitstop(*words, "--base-dir", "runs")
    assert done.code == 2 and message in done.stderr
    assert Path("runs/run_001/metadata.json").read_bytes() == before
