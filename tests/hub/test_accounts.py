"""Tokens that may not push, and none: told before the first step, and the training is as ever; or refused where that is wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli
from support.forked import Ended
from support.hub import Hub
from support.hub.environment import OTHER, READ, WRITE
from support.hub.machine import Machine
from support.hub.pushed import SETTINGS

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]

FEW = {**SETTINGS, "max_steps": 3}
NAMES = ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


@pytest.fixture
def machine(hub: Hub, tiny_model: Path, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", hub).furnish(tiny_model)


def standing(pitstop: Cli, machine: Machine) -> dict[str, Any]:
    """What ``list-runs --json`` says of the only run and the Hub."""
    (run,) = pitstop("list-runs", "--base-dir", machine.runs, "--json").json()
    hub: dict[str, Any] = run["hub"]
    return hub


def warnings_of(ended: Ended) -> list[str]:
    return [line for line in ended.output.splitlines() if line.startswith("warning:")]


def names_there(hub: Hub, repo: str) -> list[str]:
    return sorted({path.split("/")[0] for path in hub.tree(repo) if path.startswith("checkpoint-")})


def no_token(machine: Machine) -> dict[str, Any]:
    machine.token = None
    return {}


def unknown_token(machine: Machine) -> dict[str, Any]:
    machine.token = "hf_nobody"
    return {}


def offline(machine: Machine) -> dict[str, Any]:
    machine.more = {"HF_HUB_OFFLINE": "1"}
    return {}


def token_that_may_only_read(machine: Machine) -> dict[str, Any]:
    machine.token = READ
    return {}


def namespace_of_somebody_else(machine: Machine) -> dict[str, Any]:
    return {"hub_repo": "stranger/run"}


BAD = {
    no_token: ("there is no Hub token", "set HF_TOKEN"),
    unknown_token: ("the Hub does not accept the token", "HF_TOKEN"),
    token_that_may_only_read: ("may only read", "write access"),
    namespace_of_somebody_else: ("may not make stranger/run", "HF_TOKEN"),
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_token_that_will_not_do_is_told_once_before_the_first_step(
    spoil: Callable[[Machine], dict[str, Any]], machine: Machine, hub: Hub, pitstop: Cli
) -> None:
    said, advice = BAD[spoil]
    settings = spoil(machine)
    ended = machine.train({**FEW, **settings})
    print(ended.output)
    assert ended.code == 0, ended.output
    first, *rest = warnings_of(ended)
    assert said in first and advice in first, first
    assert ended.output.index(first) < ended.output.index("step 1/3")
    assert len(rest) == 1 and "3 checkpoints are not on the Hub yet; `pitstop push 1` sends what is left" in rest[0], rest
    assert sorted(path.name for path in (machine.run / "lora_weights").glob("checkpoint-*")) == NAMES
    stands = standing(pitstop, machine)
    print(pitstop("list-runs", "--base-dir", machine.runs).stdout)
    assert (stands["state"], stands["behind"]) == ("failed", 3) and stands["problem"]

    failed = machine.pitstop("push", 1)
    print(failed.output)
    assert failed.code == 5 and stands["problem"] in failed.output and "hint:" in failed.output, failed.output
    machine.token = OTHER if "hub_repo" in settings else WRITE
    pushed = machine.pitstop("push", 1)
    print(pushed.output)
    assert pushed.code == 0, pushed.output
    ((_, repo),) = hub.store.repositories
    assert names_there(hub, repo) == NAMES
    assert standing(pitstop, machine) == {"repo": repo, "state": "in step", "behind": 0, "problem": None}


@pytest.mark.parametrize("spoil", [*BAD, offline], ids=lambda spoil: spoil.__name__)
def test_where_pushing_is_required_nothing_is_trained(
    spoil: Callable[[Machine], dict[str, Any]], machine: Machine, hub: Hub, pitstop: Cli
) -> None:
    said, advice = BAD.get(spoil, ("HF_HUB_OFFLINE is set", "unset"))
    ended = machine.train({**FEW, **spoil(machine), "push_required": True})
    print(ended.output)
    assert ended.code == 5, ended.output
    assert re.search(rf"error: .*{re.escape(said)}", ended.output) and "hint:" in ended.output and advice in ended.output
    assert "step 1/3" not in ended.output and not warnings_of(ended)
    runs = pitstop("list-runs", "--base-dir", machine.runs, "--json").json()
    print(json.dumps(runs))
    assert [(run["status"], run["checkpoints"]) for run in runs] in ([], [("failed", 0)])
    assert not hub.store.repositories
    assert "Traceback" not in ended.output


def test_offline_checkpoints_are_kept_and_pushed_later(machine: Machine, hub: Hub, pitstop: Cli) -> None:
    machine.more = {"HF_HUB_OFFLINE": "1"}
    ended = machine.train(FEW)
    print(ended.output)
    assert ended.code == 0, ended.output
    first, *rest = warnings_of(ended)
    assert "HF_HUB_OFFLINE is set" in first
    assert ended.output.index(first) < ended.output.index("step 1/3")
    assert len(rest) == 1 and "3 checkpoints are not on the Hub yet" in rest[0]
    assert standing(pitstop, machine)["behind"] == 3
    refused = machine.pitstop("push", 1)
    print(refused.output)
    assert refused.code == 5, refused.output
    assert "run_001 is not on the Hub: HF_HUB_OFFLINE is set (left: 3 checkpoints" in refused.output
    assert "hint: unset HF_HUB_OFFLINE" in refused.output
    assert not hub.log
    machine.more = {}
    assert machine.pitstop("push", 1).code == 0
    ((_, repo),) = hub.store.repositories
    assert names_there(hub, repo) == NAMES


@pytest.mark.parametrize("place", [".env", "login"])
def test_the_token_may_lie_in_the_env_file_or_the_clients_login(place: str, machine: Machine, hub: Hub) -> None:
    machine.token = None
    file = machine.home / {".env": "cwd/.env", "login": "hf/token"}[place]
    file.parent.mkdir()
    file.write_text(f"HF_TOKEN={WRITE}\n" if place == ".env" else WRITE)
    ended = machine.train({**FEW, "push_required": True})
    assert ended.code == 0 and not warnings_of(ended), ended.output
    ((_, repo),) = hub.store.repositories
    assert names_there(hub, repo) == NAMES
