"""Which runs ``push`` takes, and what it refuses before the Hub is asked. What it does is in tests/hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.cli.commands import push as command
from support.cli import Cli
from support.housekeeping import make_run

BASE = Path("checkpoints")


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that would be pushed."""
    runs: list[str] = []

    def note(run: object, *rest: object, **named: object) -> dict[str, object]:
        runs.append(run.label)  # type: ignore[attr-defined]
        return {"problem": None}

    monkeypatch.setattr(command, "push_run", note)
    monkeypatch.setattr(command, "hub_client", lambda env_file: None)
    return runs


def test_all_takes_those_that_are_pushed_and_have_a_checkpoint(pitstop: Cli, taken: list[str]) -> None:
    for _ in range(4):
        make_run(BASE)
    for number in (2, 3, 4):
        Outbox(BASE / f"run_00{number}").open(Destination())
    for checkpoint in (BASE / "run_003" / "lora_weights").iterdir():  # it failed before its first save
        checkpoint.rename(BASE / checkpoint.name)
    (BASE / "run_004" / "hub" / "outbox.json").write_text("{")  # damaged: the push says so
    assert pitstop("push", "--all").code == 0
    assert taken == ["run_002", "run_004"]


def test_with_nothing_to_push_it_says_so(pitstop: Cli, taken: list[str]) -> None:
    make_run(BASE)
    done = pitstop("push", "--all")
    assert (done.code, taken) == (0, []) and "no run here is to be pushed" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Which run?"),
        (["1", "--all"], "Which run?"),
        (["--all", "--hub-repo", "me/x"], "--all means several"),
        (["1@checkpoint-2"], "push takes whole runs"),
        (["9"], "run '9' not found"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str, pitstop: Cli, taken: list[str]) -> None:
    make_run(BASE)
    done = pitstop("push", *words)
    assert (done.code, taken) == (2, []) and said in done.stderr and "hint:" in done.stderr
