"""Two processes that train together push once, and what they pushed is what anybody loads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pitstop.checkpointing.runs.inventory import INVENTORY, Inventory
from support.forked import two_ranks
from support.hub import Hub
from support.hub.machine import Machine
from support.hub.pushed import SETTINGS
from support.training import arguments, assert_same_end

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]

FOUR = {**SETTINGS, "max_steps": 4, "num_processes": 2}
BOTH_RNG = ("rng_state_0.json", "rng_state_1.json", "adapter_model.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class Together:
    """Two runs of the same training by two processes: ``pushed`` went to ``repo``, ``local`` was not pushed."""

    hub: Hub
    machine: Machine
    pushed: Path
    local: Path
    repo: str
    outputs: list[str]


@pytest.fixture(scope="module")
def together(tiny_model: Path, warm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    home = tmp_path_factory.mktemp("together")
    with Hub(home / "hub") as hub:
        machine = Machine(home / "machine", hub).furnish(tiny_model)
        outputs = []
        for settings in ({**FOUR, "push_to_hub": True, "hub_retry_s": 0.05}, FOUR):
            words = arguments(machine.model, machine.home, machine.runs, **settings)
            ended = two_ranks(*words, prepare=(machine.enter, machine.enter), timeout=120)
            assert [each.code for each in ended] == [0, 0], ended
            outputs += [each.output for each in ended]
        ((_, repo),) = hub.store.repositories
        yield Together(hub, machine, machine.run, machine.runs / "run_002", repo, outputs)
    assert not hub.errors


def test_only_the_first_process_pushes_and_the_result_is_the_same(together: Together) -> None:
    first, second, *_ = together.outputs
    assert "pushed checkpoint-4" in first and "push" not in second.lower()
    assert_same_end(together.pushed, together.local, BOTH_RNG)
    titles = [commit.title.rpartition(": ")[2] for commit in reversed(together.hub.commits(together.repo))]
    assert [title for title in titles if "of step" in title] == [f"checkpoint of step {step}" for step in range(1, 5)]
    for step in range(1, 5):
        for file in (together.pushed / "lora_weights" / f"checkpoint-{step}").iterdir():
            assert together.hub.content(together.repo, f"checkpoint-{step}/{file.name}") == file.read_bytes()


def test_anybody_loads_the_adapters_and_reads_the_card(together: Together, tiny_model: Path) -> None:
    from huggingface_hub import ModelCard

    weights = together.pushed / "lora_weights"
    best = (weights / "best").resolve()
    other = next(f"checkpoint-{step}" for step in (4, 3) if f"checkpoint-{step}" != best.name)
    words = [".", str(best / "adapter_model.safetensors"), other, str(weights / other / "adapter_model.safetensors")]
    program = [sys.executable, "-m", "support.hub.loading", str(tiny_model), together.repo, *words]
    environment = {**together.machine.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr

    hub, repo = together.hub, together.repo
    assert Inventory.from_bytes(hub.content(repo, INVENTORY), INVENTORY).root == best.name
    card = ModelCard(hub.content(repo, "README.md").decode())
    assert card.data.library_name == "peft" and {"lora", "pitstop"} <= set(card.data.tags)
    assert "base_model" not in card.data.to_dict(), "a directory of the other machine is no id on the Hub"
    assert repo in card.text and "loss_curve.png" in card.text
    assert hub.content(repo, "loss_curve.png").startswith(b"\x89PNG\r\n\x1a\n")
