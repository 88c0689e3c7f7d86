"""The same promises on an NVIDIA GPU; skipped elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.training import arguments, assert_same_end, checkpoints, rows

pytestmark = pytest.mark.cuda


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def gpu() -> None:
    if not _has_cuda():
        pytest.skip("no CUDA device")


def _pitstop(*words: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pitstop.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=600,
        env=dict(os.environ),
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "settings",
    [{"method": "qlora"}, {"method": "lora"}, {"method": "lora", "use_fp16": True}, {"optimizer": "paged_adamw_8bit"}],
    ids=["qlora", "lora", "fp16", "paged"],
)
def test_terminated_run_ends_where_the_uninterrupted_one_does(
    tiny_model: Path, data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    common = {"epochs": 60, "save_strategy": "steps", "save_steps": 5, "keep_last_n": 2, **settings}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, output = _pitstop(*arguments(tiny_model, data, whole, **common))
    assert code == 0, output
    process = subprocess.Popen(
        [sys.executable, "-m", "pitstop.cli", *arguments(tiny_model, data, broken, **common)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (broken / "run_001/lora_weights/last").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert checkpoints(broken / "run_001")
    code, output = _pitstop("resume", 1, "--base-dir", broken)
    assert code == 0, output
    assert_same_end(whole / "run_001", broken / "run_001")


def test_flash_attention_gives_the_same_losses(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("flash_attn")
    common = {"method": "lora", "lora_dropout": 0.0}
    for base_dir, more in ((tmp_path / "sdpa", []), (tmp_path / "flash", ["--use-flash-attention"])):
        code, output = _pitstop(*arguments(tiny_model, data, base_dir, **common), *more)
        assert code == 0, output
    for one, other in zip(rows(tmp_path / "sdpa/run_001"), rows(tmp_path / "flash/run_001"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-2)
