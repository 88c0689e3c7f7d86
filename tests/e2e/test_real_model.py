"""SmolLM2-135M for real: needs the demo model in the cache and, for the dozen steps on the corpus, the BC5CDR records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pitstop.examples.medical_ner.render import render
from support.forked import pitstop
from support.training import train_with

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("BC5CDR_DIR", ROOT.parent / "shared" / "data" / "bc5cdr"))
STEPS = 12


def _pairs(source: Path, target: Path, count: int) -> Path:
    records = [json.loads(line) for line in source.read_text().splitlines()[:count]]
    rows = [{name: pair[name] for name in ("prompt", "completion")} for record in records for pair in render(record)]
    target.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return target


def _rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "logs/metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("warm", "onednn")
def test_three_steps_of_qlora_on_the_example_lower_the_validation_loss_by_a_quarter(smollm2: Path, tmp_path: Path) -> None:
    for name, count in (("train", 40), ("held_out", 2)):
        lines = (ROOT / "examples/medical_ner" / f"{name}.jsonl").read_text().splitlines()[:count]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    settings = {
        "model_id": smollm2,
        "dataset": tmp_path / "train.jsonl",
        "eval_dataset": tmp_path / "held_out.jsonl",
        "base_dir": tmp_path / "runs",
        "max_steps": 3,
        "eval_steps": 1,
        "max_length": 320,
        "batch_size": 1,
        "gradient_accumulation_steps": 1,
        "warmup_ratio": 0.9,  # the first step moves little: its evaluation is nearly the one before training
        "learning_rate": 1e-3,
        "no_save_base_model": True,
        "save_strategy": "no",
    }
    ended = pitstop(*train_with(settings))
    assert ended.code == 0, ended.output
    losses = [row["val_loss"] for row in _rows(tmp_path / "runs/run_001") if "val_loss" in row]
    assert len(losses) == 3 and losses[-1] < losses[0] * 3 / 4, losses


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("warm", "onednn")
@pytest.mark.skipif(not (CORPUS / "train.jsonl").is_file(), reason="the BC5CDR records are not beside the project")
def test_a_dozen_steps_of_qlora_lower_the_validation_loss_by_more_than_a_quarter(smollm2: Path, tmp_path: Path) -> None:
    train = _pairs(CORPUS / "train.jsonl", tmp_path / "train.jsonl", 60)
    held_out = _pairs(CORPUS / "validation.jsonl", tmp_path / "validation.jsonl", 4)
    words = ["train", "--model-id", smollm2, "--dataset", train, "--eval-dataset", held_out, "--base-dir", tmp_path / "runs"]
    words += [
        "--max-steps",
        STEPS,
        "--eval-steps",
        STEPS,
        "--max-length",
        512,
        "--batch-size",
        1,
        "--gradient-accumulation-steps",
        1,
    ]
    words += ["--lora-rank", 16, "--lora-alpha", 32, "--lora-dropout", 0, "--learning-rate", 1e-3, "--logging-steps", 5]
    # One step at a rate that moves nothing, evaluated at its end, gives the loss before training.
    before = [*words, "--max-steps", 1, "--learning-rate", 1e-12, "--base-dir", tmp_path / "before"]
    first = pitstop(*before, "--no-save-base-model")
    assert first.code == 0, first.output
    done = subprocess.run([sys.executable, "-m", "pitstop.cli", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", "a normal run says nothing on stderr"
    runs = (tmp_path / "before/run_001", tmp_path / "runs/run_001")
    losses = [[row["val_loss"] for row in _rows(run) if "val_loss" in row][-1] for run in runs]
    print(f"validation loss {losses[0]:.3f} before, {losses[1]:.3f} after {STEPS} steps")
    assert losses[1] < losses[0] * 3 / 4
