"""``pitstop pull`` and ``pitstop resume --from-hub`` from the command line's side; training itself is in tests/e2e."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.hub import client, remote_repository
from pitstop.checkpointing.hub.client import Offline, Unavailable
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.listing import list_runs
from support.cli import Cli
from support.launched import one_of_two
from support.repositories import REPO, FakeHub, Files, repository


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return repository(tmp_path / "pushed")


@pytest.fixture
def tokens() -> list[str | None]:
    return []


@pytest.fixture
def hub(files: Files, tokens: list[str | None], monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """What the commands take for the Hub."""
    hub = FakeHub(files)

    def connect(token: str | None = None) -> FakeHub:
        tokens.append(token)
        return hub

    monkeypatch.setattr(client, "HubClient", connect)
    monkeypatch.setattr(remote_repository, "Patience", lambda: pull_patience)
    return hub


pull_patience = remote_repository.Patience(sleep=lambda seconds: None)


def test_pull_says_what_came_and_how_to_go_on(hub: FakeHub, tmp_path: Path, pitstop: Cli) -> None:
    create_run(tmp_path / "runs", name="other", config={}, metadata={}, number=3)
    done = pitstop("pull", REPO, "--base-dir", tmp_path / "runs")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == [f"Run 4: a-run in {tmp_path / 'runs/run_004'}", "Go on with: pitstop resume 4"]
    assert done.stderr.splitlines()[0].startswith("Pulling a-run from owner/a-run at 012345678901: checkpoint-6, ")
    assert done.stderr.splitlines()[1].startswith("fetched and verified checkpoint-6 (6 files")
    assert "a-run" in pitstop("list-runs", "--base-dir", tmp_path / "runs").stdout
    shown = pitstop("show", 4, "--base-dir", tmp_path / "runs")
    assert shown.code == 0 and "checkpoint-6" in shown.stdout
    assert pitstop("verify", "--base-dir", tmp_path / "runs", 4).code == 0


def test_pull_as_json(hub: FakeHub, tmp_path: Path, pitstop: Cli) -> None:
    done = pitstop("pull", f"{REPO}@3", "--run-number", 7, "--base-dir", tmp_path / "runs", "--json")
    assert done.json() == {
        "repo": REPO,
        "commit": hub.commit,
        "run_number": 7,
        "name": "a-run",
        "path": str(tmp_path / "runs/run_007"),
        "checkpoint": "checkpoint-3",
        "step": 3,
        "base_model": False,
    }


def test_pull_takes_place_and_token_from_the_settings(
    hub: FakeHub, tokens: list[str | None], tmp_path: Path, pitstop: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.env").write_text(f"HF_TOKEN=hf_{'x' * 30}\nOUTPUT_DIR={tmp_path / 'there'}\n")
    assert pitstop("pull", REPO, "--env-file", tmp_path / "my.env").code == 0
    assert tokens == [f"hf_{'x' * 30}"]
    assert len(list_runs(tmp_path / "there")) == 1
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "elsewhere"))
    assert pitstop("pull", REPO, "--checkpoint", "best").code == 0
    assert tokens[1:] == [None], "the client's own login then"
    assert [record.step for record in list_runs(tmp_path / "elsewhere")] == [3]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pull", "owner/none"], 5, "owner/none is not on the Hub"),
        (["pull", "not a repo"], 5, "names no repository"),
        (["pull", f"{REPO}@checkpoint-99"], 5, "there: checkpoint-3, checkpoint-6"),
        (["pull", f"{REPO}@3", "--checkpoint", "6"], 2, "pick a checkpoint"),
        (["pull"], 2, "Missing argument"),
        (["resume", "3", "--from-hub", REPO], 2, "Both a run (3) and --from-hub owner/a-run"),
        (["resume", "--run-number", "3", "--from-hub", REPO], 2, "Both a run (3)"),
        (["resume", "--from-hub", f"{REPO}@3", "--checkpoint", "6"], 2, "pick a checkpoint"),
        (["resume", "--from-hub", "owner/none"], 5, "owner/none is not on the Hub"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_with_its_exit_code(
    words: list[str], code: int, said: str, hub: FakeHub, pitstop: Cli
) -> None:
    done = pitstop(*words)
    assert (done.code, done.stdout) == (code, "")
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not list(Path().rglob("run_*"))


def test_a_hostile_repository_ends_with_code_5_and_the_name(hub: FakeHub, files: Files, pitstop: Cli) -> None:
    files["evil\x1b[2J.pkl"] = b""
    done = pitstop("pull", REPO)
    assert done.code == 5
    assert r"evil\x1b[2J.pkl" in done.stderr and "\x1b" not in done.stderr
    assert "remove that file" in done.stderr


@pytest.mark.parametrize("command", [["pull", REPO], ["resume", "--from-hub", REPO]])
@pytest.mark.parametrize("error", [Offline("HF_HUB_OFFLINE is set"), Unavailable("ConnectError: refused")])
def test_a_hub_that_is_not_there_ends_with_code_5(command: list[str], error: Exception, hub: FakeHub, pitstop: Cli) -> None:
    def raise_it(what: str) -> None:
        raise error

    hub.before = raise_it
    done = pitstop(*command)
    assert done.code == 5 and str(error) in done.stderr and "hint:" in done.stderr


def test_a_repository_that_is_here_is_resumed_by_its_number(hub: FakeHub, tmp_path: Path, pitstop: Cli) -> None:
    assert pitstop("pull", REPO, "--base-dir", tmp_path).code == 0
    for words in (["pull", REPO], ["resume", "--from-hub", REPO]):
        done = pitstop(*words, "--base-dir", tmp_path)
        assert done.code == 2 and "pitstop resume 1" in done.stderr
    assert len(list_runs(tmp_path)) == 1


def test_processes_of_torchrun_do_not_all_pull(hub: FakeHub, pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    one_of_two(monkeypatch, 1)
    done = pitstop("resume", "--from-hub", REPO)
    assert done.code == 2 and "pitstop pull owner/a-run" in done.stderr
    assert hub.downloads == []


@pytest.mark.parametrize(
    "words",
    [
        ["--from-hub", REPO, "--checkpoint", "3"],
        [f"--from-hub={REPO}", "--checkpoint=3"],
        ["--quiet", "--from-hub", f"{REPO}@3"],
    ],
)
def test_it_is_pulled_once_for_several_processes(
    words: list[str], hub: FakeHub, tmp_path: Path, pitstop: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def launch(processes: int, arguments: list[str]) -> int:
        started.append((processes, arguments))
        return 0

    monkeypatch.setattr("pitstop.trainers.machine.launch.launch", launch)
    line = ["resume", *words, "--epochs", "9", "--num-processes", "2", "--base-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["pitstop", *line])
    assert pitstop(*line).code == 0
    kept = ["--quiet"] if "--quiet" in words else []
    rest = [*kept, "--epochs", "9", "--num-processes", "2", "--base-dir", str(tmp_path)]
    assert started == [(2, ["resume", str(tmp_path / "run_001"), *rest])]
    assert [record.step for record in list_runs(tmp_path)] == [3]
