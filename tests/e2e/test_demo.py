"""The demo measures this machine with the real model, and the settings that it runs with are those that it means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pitstop.configs.load import load_settings
from pitstop.examples.medical_ner import pace

MEASURE = """
import json, sys
from pitstop.trainers.machine.launch import prepare_environment
prepare_environment()
from dataclasses import astuple
from pitstop.examples.medical_ner.demo import held_out_questions
from pitstop.examples.medical_ner.pace import UntrainedModel, measure
model = UntrainedModel(sys.argv[1])
prompts = [question["prompt"] for question in held_out_questions()]
answers = model.answer(prompts[:2], 4)
print(json.dumps({"workload": astuple(model.workload), "pace": astuple(measure(model, prompts)), "answers": answers}))
"""


@pytest.mark.slow  # `make demo` does it for real
def test_the_untrained_model_is_measured_and_answers(smollm2: Path, tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "checkpoints")], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stdout + child.stderr
    measured = json.loads(child.stdout.splitlines()[-1])
    assert measured["workload"] == [98, 2, 10, 200]  # 49 sequences, twice
    assert all(seconds > 0 for seconds in measured["pace"][:3]) and measured["pace"][3] >= 0
    assert len(measured["answers"]) == 2 and all(isinstance(answer, str) for answer in measured["answers"])
    assert len(list((tmp_path / "checkpoints/.base_models").iterdir())) >= 1  # which the training then finds


def test_the_short_demo_saves_by_steps_and_does_not_evaluate() -> None:
    short = Path(pace.__file__).with_name("short.yaml")
    settings = load_settings(flags={}, config_files=["demo", str(short)], env_file=None).settings
    whole = load_settings(flags={}, config_files=["demo"], env_file=None).settings
    assert settings.training.checkpoint.strategy == "steps" and settings.data.eval == []
    assert settings.data.train == whole.data.train and settings.training.learning_rate == whole.training.learning_rate
