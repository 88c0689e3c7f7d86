"""A run that was stopped goes on from the Hub on an empty machine, and ends as if nothing had happened."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.forked import kill_at_step
from support.hub import Hub
from support.hub.machine import Machine, copied, no_patience
from support.hub.pushed import SAVES, SETTINGS, PushedTraining
from support.training import assert_same_end, metadata
from support.trials import Trainings

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]

STOPPED_AT = 6


@dataclass(frozen=True)
class Stopped:
    """A training that pushed and was stopped by SIGTERM at step 6: ``hub`` holds its repository, ``run`` is what is left of it."""

    hub: Path
    run: Path
    repo: str
    mode: str
    has_base: bool


@pytest.fixture(scope="module", params=[("lfs", True), ("xet", False)], ids=["with its base", "by its model"])
def stopped(request: pytest.FixtureRequest, tiny_model: Path, warm: None, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    mode, has_base = request.param
    home = tmp_path_factory.mktemp("stopped")
    with Hub(home / "hub") as hub:
        machine = Machine(home / "one", hub, mode).furnish(tiny_model)
        settings = {**SETTINGS, **({"push_base": True} if has_base else {})}
        ended = machine.train(settings, prepare=kill_at_step(STOPPED_AT, signal.SIGTERM))
        assert ended.code == 143, ended.output
        ((_, repo),) = hub.store.repositories
        assert "not on the Hub yet" not in ended.output, ended.output
    return Stopped(home / "hub", machine.vanish(), repo, mode, has_base)


@pytest.fixture
def hub(stopped: Stopped, tmp_path: Path) -> Iterator[Hub]:
    with copied(stopped.hub, tmp_path / "hub") as running:
        yield running


@pytest.fixture
def here(stopped: Stopped, hub: Hub, tiny_model: Path, tmp_path: Path) -> Machine:
    """An empty machine, but for the data; and for the model where that was not pushed."""
    machine = Machine(tmp_path / "here", hub, stopped.mode).furnish(tiny_model)
    machine.data.rename(tmp_path / "other.jsonl")
    if stopped.has_base:
        machine.model.rename(tmp_path / "no-model")
    return machine


@pytest.fixture
def places(stopped: Stopped, here: Machine, tmp_path: Path) -> list[str]:
    """What a resume has to be told of this machine."""
    return ["--dataset", str(tmp_path / "other.jsonl"), *([] if stopped.has_base else ["--model-id", str(here.model)])]


@pytest.fixture
def undisturbed(trainings: Trainings) -> Path:
    """The run of the same training without the Hub and without a stop."""
    return trainings.reference("without the Hub", SETTINGS).run


def steps_there(hub: Hub, repo: str) -> list[int]:
    """The steps of the checkpoints in the repository."""
    found = {path.split("/")[0] for path in hub.tree(repo) if path.startswith("checkpoint-")}
    return sorted(int(name.removeprefix("checkpoint-")) for name in found)


def arrived(here: Machine, trainings: Trainings) -> PushedTraining:
    return PushedTraining(trainings, here.hub, here.environment, run=here.run)


def test_the_run_goes_on_from_the_hub_and_back_to_it(
    stopped: Stopped, hub: Hub, here: Machine, places: list[str], undisturbed: Path, trainings: Trainings, tmp_path: Path
) -> None:
    assert steps_there(hub, stopped.repo) == [1, 2, 3, 4, 5, 6]
    early = here.start("pull", stopped.repo, "--base-dir", tmp_path / "early").wait(60)
    assert early.code == 0, early.output
    ended = here.pitstop("resume", "--from-hub", stopped.repo, *places)
    assert ended.code == 0, ended.output
    assert "warning" not in ended.output
    assert_same_end(undisturbed, here.run)
    arrived(here, trainings).assert_arrived(undisturbed)
    assert metadata(here.run)["resumes"][-1]["checkpoint"] == "checkpoint-6"

    late = here.start("pull", stopped.repo, "--base-dir", tmp_path / "late").wait(60)
    assert late.code == 0, late.output
    ends = {name: (tmp_path / name / "run_001/lora_weights/last").resolve().name for name in ("early", "late")}
    assert ends == {"early": "checkpoint-6", "late": "checkpoint-12"}, "what was fetched before is no answer"
    assert_same_end(undisturbed, tmp_path / "late" / "run_001")

    hub.down()
    lost = here.start("pull", stopped.repo, "--base-dir", tmp_path / "lost", prepare=no_patience).wait(60)
    assert lost.code == 5 and "cannot be pulled" in lost.output and "hint:" in lost.output, lost.output
    assert "Traceback" not in lost.output
    assert not list((tmp_path / "lost").rglob("run_*"))
    hub.up()


def test_from_an_older_checkpoint_the_line_that_is_left_goes_from_the_hub(
    stopped: Stopped, hub: Hub, here: Machine, places: list[str], undisturbed: Path
) -> None:
    stop = kill_at_step(5, signal.SIGTERM)
    ended = here.pitstop("resume", "--from-hub", f"{stopped.repo}@checkpoint-3", *places, prepare=stop)
    assert ended.code == 143, ended.output
    assert steps_there(hub, stopped.repo) == [1, 2, 3, 4, 5]
    ended = here.pitstop("resume", 1)
    assert ended.code == 0, ended.output
    assert_same_end(undisturbed, here.run)
    assert steps_there(hub, stopped.repo) == list(range(1, SAVES + 1))
    for step in range(1, SAVES + 1):
        name = f"checkpoint-{step}"
        weights = hub.content(stopped.repo, f"{name}/adapter_model.safetensors")
        assert weights == (undisturbed / "lora_weights" / name / "adapter_model.safetensors").read_bytes()
