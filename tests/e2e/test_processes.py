"""Two processes under DistributedDataParallel (gloo on the CPU)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.training import EXACT_FILES, arguments, assert_same_end, checkpoints, rows

pytestmark = pytest.mark.timeout(900)
TWO = {"num_processes": 2, "gradient_accumulation_steps": 2, "epochs": 16, "save_strategy": "steps", "save_steps": 3}


def _start(*words: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pitstop.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def test_two_processes_interrupted_and_resumed_end_where_the_uninterrupted_ones_do(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, output = _finish(_start(*arguments(tiny_model, data, whole, **TWO)))
    assert code == 0, output
    assert output.count("Run 1:") == 1, "one process speaks for all"

    process = _start(*arguments(tiny_model, data, broken, **TWO))
    run = broken / "run_001"
    deadline = time.monotonic() + 120
    while not (run / "lora_weights/checkpoint-3").is_dir():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, output = _finish(process)
    assert code == 143, output
    assert len(checkpoints(run)) >= 1
    code, output = _finish(_start("resume", 1, "--base-dir", broken))
    assert code == 0, output
    assert_same_end(whole / "run_001", run, (*EXACT_FILES, "rng_state_1.json"))


def test_one_and_two_processes_follow_the_same_path_for_the_same_global_batch(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    """Equal up to rounding: the gradient is normalised over all processes, and the global batches are the same."""
    one, two = tmp_path / "one", tmp_path / "two"
    common = {"lora_dropout": 0.0, "epochs": 2, "method": "lora"}
    for base_dir, processes, accumulation in ((one, 1, 4), (two, 2, 2)):
        more = {"gradient_accumulation_steps": accumulation, "num_processes": processes}
        code, output = _finish(_start(*arguments(tiny_model, data, base_dir, **more, **common)))
        assert code == 0, output
    for mine, theirs in zip(rows(one / "run_001"), rows(two / "run_001"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert mine["tokens"] == theirs["tokens"]


def test_a_file_of_the_current_directory_does_not_pass_for_a_library(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('taken for the standard library')")
    code, output = _finish(_start(*arguments(tiny_model, data, tmp_path / "runs", num_processes=2, max_steps=1), cwd=tmp_path))
    assert code == 0, output


def test_a_wrong_path_under_two_processes_is_said_once_with_its_exit_code(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    code, output = _finish(_start(*arguments(tiny_model, data, tmp_path / "runs", dataset=data / "trian.jsonl", num_processes=2)))
    assert code == 3, output
    assert output.count("error:") == 1, output
    assert "Did you mean" in output
    assert "Traceback" not in output


def test_torchrun_starts_the_same_training(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pitstop.cli"]
    words = [*torchrun, *arguments(tiny_model, data, tmp_path / "runs", max_steps=2)]
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metadata = json.loads((tmp_path / "runs/run_001/metadata.json").read_text())
    assert metadata["environment"]["world_size"] == 2
    assert not (tmp_path / "runs/run_002").exists()
