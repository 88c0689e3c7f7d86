"""``pitstop push``, ``list-runs`` and ``delete --hub`` with several runs, as a person uses them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli
from support.hub import Hub
from support.hub.machine import Machine
from support.hub.pushed import SETTINGS

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]

TWO = {**SETTINGS, "max_steps": 2}
KEYS = ["run", "repo", "commits", "left", "problem"]


@pytest.fixture
def machine(hub: Hub, tiny_model: Path, tmp_path: Path) -> Machine:
    """A machine with three runs: one in step, one that is behind, and one whose repository another run has taken."""
    machine = Machine(tmp_path / "machine", hub).furnish(tiny_model)
    names = iter(("good", "late", "lost"))
    for settings in ({}, {"hub_repo": "tester/late", "push_timeout": 0}, {"hub_repo": "tester/lost", "push_timeout": 0}):
        hub.fault(path="/commit/" if settings else "/no-such-path", times=-1, delay=30.0)
        ended = machine.train({**TWO, "experiment_name": next(names), **settings})
        assert ended.code == 0, ended.output
        hub.faults.clear()
    return machine


def column(pitstop: Cli, machine: Machine) -> dict[str, Any]:
    """The Hub's part of ``list-runs`` by experiment."""
    runs = pitstop("list-runs", "--base-dir", machine.runs, "--json").json()
    return {run["experiment_name"]: (run["hub"]["state"], run["hub"]["behind"]) for run in runs}


def take(hub: Hub, repo: str, other: str) -> None:
    """Put another run in a repository's place."""
    files = {path: hub.content(other, path) for path in hub.tree(other)}
    hub.put(repo, files, delete=list(hub.tree(repo)))


def test_all_runs_have_their_turn_and_a_repository_goes_with_its_run(machine: Machine, hub: Hub, pitstop: Cli) -> None:
    assert column(pitstop, machine) == {"good": ("in step", 0), "late": ("behind", 2), "lost": ("behind", 2)}
    (good,) = [name for _, name in hub.store.repositories if name not in ("tester/late", "tester/lost")]
    take(hub, "tester/lost", good)
    ended = machine.start("push", "--all", "--json", "--base-dir", machine.runs, prepare=no_stderr).wait(60)
    assert ended.code == 5, ended.output
    results = json.loads(ended.output)
    assert [list(result) for result in results] == [KEYS] * 3
    assert [(result["run"], result["repo"], result["commits"], result["left"]) for result in results] == [
        ("run_001", good, 0, []),
        ("run_002", "tester/late", 2, []),
        ("run_003", "tester/lost", 0, ["checkpoint-1", "checkpoint-2"]),
    ]
    assert [bool(result["problem"]) for result in results] == [False, False, True]
    assert "holds another run" in results[2]["problem"] or "is taken" in results[2]["problem"]
    assert column(pitstop, machine) == {"good": ("in step", 0), "late": ("in step", 0), "lost": ("failed", 2)}
    table = pitstop("list-runs", "--base-dir", machine.runs).stdout.splitlines()
    assert [line.split("  ")[-1].strip().partition(":")[0] for line in table] == ["Hub", "in step", "in step", "failed"]

    words = machine.pitstop("push", "--all")
    assert words.code == 5 and words.output.count("(all was there already)") == 2, words.output
    assert "warning: run_003 is not on the Hub" in words.output and "hint: give another one with --hub-repo" in words.output, (
        "what to do is told for each run"
    )
    moved = machine.pitstop("push", 3, "--hub-repo", "tester/found")
    assert moved.code == 0 and "tester/found" in moved.output, moved.output
    assert column(pitstop, machine)["lost"] == ("in step", 0)
    resumed = machine.pitstop("resume", 3, "--max-steps", 3, "--push-timeout", 60)
    assert resumed.code == 0 and "Pushing every checkpoint to tester/found." in resumed.output, resumed.output
    assert [path for path in hub.tree("tester/found") if path.startswith("checkpoint-3/")]
    assert len(hub.commits("tester/lost")) == 2, "nothing of it went there"

    deleted = machine.pitstop("delete", 2, "--hub", "--yes")
    assert deleted.code == 0 and "its repository tester/late is deleted on the Hub" in deleted.output, deleted.output
    assert ("models", "tester/late") not in hub.store.repositories and ("models", good) in hub.store.repositories
    assert not (machine.runs / "run_002").exists()


def test_a_base_is_pushed_later_too(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", hub).furnish(tiny_model)
    assert machine.train(TWO).code == 0
    ((_, repo),) = hub.store.repositories
    assert not [path for path in hub.tree(repo) if path.startswith("base/")]
    pushed = machine.pitstop("push", 1, "--push-base")
    assert pushed.code == 0 and "pushed the base model" in pushed.output, pushed.output
    local = machine.run / "base_model"
    there = {path.removeprefix("base/") for path in hub.tree(repo) if path.startswith("base/")}
    assert there == {path.name for path in local.iterdir()}
    shutil.rmtree(machine.model)
    pulled = machine.start("pull", repo, "--base-dir", tmp_path / "other", "--json").wait(60)
    assert pulled.code == 0 and '"base_model": true' in pulled.output, pulled.output
    again = machine.pitstop("push", 1, "--push-base")
    assert again.code == 0 and "(all was there already)" in again.output


def no_stderr() -> None:
    """In a forked child: stdout alone is kept."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
