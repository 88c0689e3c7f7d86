"""Training on images that is killed, terminated and resumed leaves, from there on, the checkpoints of a training that nothing disturbed."""

from __future__ import annotations

import random
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.forked import kill_at_step, pitstop, two_ranks
from support.image_training import CLASSES, OF_TREES, image_arguments, write_image_data
from support.stores import fast_directory
from support.training import assert_same_checkpoints, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

BASE: dict[str, Any] = {"method": "full"}
STAGES: dict[str, dict[str, Any]] = {
    "base": BASE,
    "base with an average and flips": {**BASE, "ema_decay": 0.8, "flip_images": True},
    "base told classes, with flips": {**BASE, "conditional_classes": len(CLASSES), "flip_images": True},
    "adapter with ranks by resolution, dropout and flips": {**OF_TREES, "lora_dropout": 0.1, "flip_images": True},
}


@dataclass(frozen=True)
class Place:
    """Where all runs of the module lie, beside the base training that adapters stand on."""

    home: Path

    def arguments(self, name: str, **settings: Any) -> list[str]:
        return image_arguments(self.home, self.home / "runs", **{**settings, "experiment_name": name})

    def run(self, name: str) -> Path:
        """The run whose experiment is ``name``."""
        (found,) = (path.resolve() for path in self._runs() if metadata(path)["experiment_name"] == name)
        return found

    def _runs(self) -> Iterator[Path]:
        yield from (self.home / "runs").glob("run_*")
        yield from (self.home / "runs/base_training").glob("run_*")


@pytest.fixture(scope="module")
def place(warm: None) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="pitstop-images-", dir=fast_directory()) as home:
        there = Place(write_image_data(Path(home)))
        ended = pitstop(*there.arguments("base", **BASE))
        assert ended.code == 0, ended.output
        yield there


def _pictures(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "logs/samples").iterdir()}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_terminated_it_goes_on_as_if_nothing_had_happened(place: Place, stage: str) -> None:
    """Killed at a step from which no checkpoint is, terminated at any later one; the seed is that of the name."""
    rng = random.Random(stage)
    killed = rng.choice([4, 5, 7, 8])
    terminated = rng.randint(killed + 1, 11)
    settings = STAGES[stage]
    if stage != "base":
        ended = pitstop(*place.arguments(stage, **settings))
        assert ended.code == 0, ended.output
    broken = f"{stage}, killed at {killed}, terminated at {terminated}"
    ended = pitstop(*place.arguments(broken, **settings), prepare=kill_at_step(killed))
    assert ended.code == -signal.SIGKILL, ended.output
    run = place.run(broken)
    assert max(int(name.removeprefix("checkpoint-")) for name in checkpoints(run)) < killed
    ended = pitstop("resume", run, prepare=kill_at_step(terminated, signal.SIGTERM))
    assert ended.code == 143 and "Go on with: pitstop resume" in ended.output, ended.output
    ended = pitstop("resume", run)
    assert ended.code == 0, ended.output
    assert_same_checkpoints(place.run(stage), run)
    assert _pictures(place.run(stage)) == _pictures(run)


@pytest.mark.parametrize("count", [0, 5])
def test_training_is_the_same_however_many_images_are_made_on_the_way(place: Place, count: int) -> None:
    name = f"{count} images"
    ended = pitstop(*place.arguments(name, **BASE, sample_images=count, sampling_steps=3))
    assert ended.code == 0, ended.output
    assert (place.run(name) / "logs/samples").exists() == (count > 0)
    assert_same_checkpoints(place.run("base"), place.run(name))


def test_flips_change_what_is_learnt_and_not_how_it_is_judged(place: Place) -> None:
    """At a rate of next to nothing the weights stay what they were, so that losses differ by the images alone."""
    still = {**BASE, "learning_rate": 1e-30, "max_steps": 6}
    for name, flip in (("upright", None), ("flipped", True)):
        ended = pitstop(*place.arguments(name, **still, flip_images=flip))
        assert ended.code == 0, ended.output
    upright, flipped = (rows(place.run(name)) for name in ("upright", "flipped"))
    assert upright[-1]["val_loss"] == flipped[-1]["val_loss"]
    assert [row["loss"] for row in upright] != [row["loss"] for row in flipped]


def test_two_processes_are_the_same_from_run_to_run_and_resume_exactly(place: Place) -> None:
    two = {**BASE, "num_processes": 2, "batch_size": 2, "max_steps": 6, "ema_decay": 0.8}
    names = ("two", "two again", "two, stopped")
    stop = (None, kill_at_step(4, signal.SIGTERM))
    for name, prepare, code in zip(names, ((None, None), (None, None), stop), (0, 0, 143), strict=True):
        ended = two_ranks(*place.arguments(name, **two), prepare=prepare)
        assert [child.code for child in ended] == [code, code], ended
    resumed = two_ranks("resume", place.run(names[2]))
    assert [child.code for child in resumed] == [0, 0], resumed
    assert (place.run(names[0]) / "checkpoints/last/rng_state_1.json").is_file()
    for name in names[1:]:
        assert_same_checkpoints(place.run(names[0]), place.run(name))
        assert _pictures(place.run(names[0])) == _pictures(place.run(name))
