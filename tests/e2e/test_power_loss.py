"""A power cut at any moment of a real training, with its real saver: on the model of a disk that forgets what it may."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.disk_model import Recorder
from support.fault_matrix import Matrix
from support.stores import in_child
from support.training import arguments, broken_run
from support.trials import Trainings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]

EVERY, KEEP = 2, 2
SETTINGS: dict[str, Any] = {
    "method": "lora",
    "lora_rank": 1,
    "lora_target_modules": "q_proj",
    "no_packing": True,
    "eval_dataset": None,
    "epochs": 1,
    "save_strategy": "steps",
    "save_steps": EVERY,
    "keep_last_n": KEEP,
}
SHARE = 10  # one image in ten of the row is one of real training


def recorded_training(words: list[str], root: Path) -> Recorder:
    """Train in this process, a forked one, with everything below ``root`` on record and every "saved" acknowledged."""
    import torch

    from pitstop.checkpointing.disk.storage import LocalStorage
    from pitstop.cli.main import main
    from pitstop.trainers.reporter import Reporter

    torch.set_num_threads(1)
    recorder = Recorder(root)
    recorder.watch(LocalStorage)
    say = Reporter.line

    def line(self: Reporter, text: str) -> None:
        if saved := re.match(r"saved .*\(step (\d+),", text):
            recorder.acknowledge(int(saved[1]))
        if text.startswith("Run 1:"):
            recorder.made = recorder.count
        say(self, text)

    Reporter.line = line  # type: ignore[method-assign]
    assert main(words) == 0
    return recorder


def judge(recorder: Recorder, images: int, scratch: Path) -> list[dict[str, Any]]:
    """What each of ``images`` power cuts breaks."""
    rng = random.Random(31)
    span = recorder.count + 1 - recorder.made
    verdicts = []
    for seed in range(images):
        count = recorder.made + rng.randrange(span)
        recorder.image(count, random.Random(seed), scratch)
        acknowledged = recorder.acknowledged_steps(count)
        problem = broken_run(scratch / "run_001", acknowledged, {max(acknowledged, default=0) + EVERY}, KEEP)
        verdicts.append({"seed": seed, "after": count, "problem": problem})
        shutil.rmtree(scratch)
    return verdicts


def test_no_power_cut_during_a_real_training_costs_what_it_said_it_saved(trainings: Trainings, matrix: Matrix) -> None:
    row = matrix("power loss: unsynced writes dropped, reordered, torn")
    home = trainings.home / "power"
    (home / "runs").mkdir(parents=True)
    answer = home / "verdicts.json"

    def body() -> None:
        os.dup2(os.open(home / "output", os.O_WRONLY | os.O_CREAT), 1)
        recorder = recorded_training(arguments(trainings.model, trainings.home, home / "runs", **SETTINGS), home / "runs")
        assert [step for _, step in recorder.acknowledged] == [2, 4, 6, 8, 10, 12]
        answer.write_text(json.dumps(judge(recorder, row.count // SHARE, home / "image")))

    assert in_child(body) == 0, (home / "output").read_text()
    for verdict in json.loads(answer.read_text()):
        with row.trial(f"real training, seed {verdict['seed']}, after operation {verdict['after']}"):
            assert verdict["problem"] is None
