"""One training in a fresh process, with pushing or without, and what its uploader used of the processor."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.vs_trl.sides import SideFailed, environment

UPLOADER = "pitstop.checkpointing.hub.process"
LOOK_EVERY_S = 0.25
"""How often the uploader's clock is read; what it uses after the last look is missed."""


@dataclass(frozen=True)
class Job:
    """What both sides train: ``every`` is the number of steps between saves, ``rank`` that of the adapter."""

    model: Path
    data: Path
    steps: int
    every: int
    rank: int = 16


def arguments(job: Job, base_dir: Path, *, pushing: bool) -> list[str]:
    """The arguments of ``pitstop`` that train ``job`` into ``base_dir``."""
    words = {
        "--method": "lora", "--model-id": job.model, "--dataset": job.data, "--base-dir": base_dir,
        "--max-steps": job.steps, "--save-strategy": "steps", "--save-steps": job.every, "--keep-last-n": 2,
        "--batch-size": 1, "--gradient-accumulation-steps": 1, "--learning-rate": 2e-4, "--max-length": 1024,
        "--lora-rank": job.rank, "--lora-alpha": 2 * job.rank, "--lora-dropout": 0, "--logging-steps": 1,
    }  # fmt: skip
    push = "--push-to-hub" if pushing else "--no-push-to-hub"
    return ["train", "--json", "--no-packing", "--no-save-base-model", push, *(str(w) for pair in words.items() for w in pair)]


def train(job: Job, work: Path, surroundings: Mapping[str, str], *, pushing: bool) -> dict[str, Any]:
    """Train ``job`` in ``work``, an empty directory: seconds of each step, the uploader's, and how many checkpoints arrived.

    Raises ``SideFailed``.
    """
    command = [sys.executable, "-m", "pitstop.cli", *arguments(job, work / "checkpoints", pushing=pushing)]
    with (work / "output.json").open("w+") as output, (work / "output.log").open("w+") as log:
        child = subprocess.Popen(
            command, cwd=work, env={**environment(work), **surroundings}, stdin=subprocess.DEVNULL, stdout=output, stderr=log
        )
        uploader_s = _watch(child)
        if child.returncode != 0:
            raise SideFailed(f"the training exited with {child.returncode}:\n{(work / 'output.log').read_text()[-2000:]}")
        output.seek(0)
        summary = json.load(output)
    return {**_read(summary, Path(summary["path"])), "uploader_s": uploader_s}


def _watch(child: subprocess.Popen[bytes]) -> float:
    """Wait for the training; returns the processor seconds of its uploader. The same looks are taken where there is none."""
    seconds: dict[int, float] = {}
    training = psutil.Process(child.pid)
    while True:
        try:
            child.wait(LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            seconds |= _uploaders(training)
        else:
            return sum(seconds.values())


def _uploaders(training: psutil.Process) -> dict[int, float]:
    times_by_process = {}
    try:
        for process in training.children():
            if UPLOADER in process.cmdline():
                times = process.cpu_times()
                times_by_process[process.pid] = times.user + times.system
    except psutil.NoSuchProcess:
        pass  # it ended while it was looked at
    return times_by_process


def _read(summary: Mapping[str, Any], run: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [save["step"] for save in summary["saves"]]
    unpushed = (summary["hub"] or {}).get("left", [])
    return {
        "steps_s": [row["step_s"] for row in rows],
        "saved": steps,
        "arrived_with_the_last_step": arrived((run / "logs" / "train.log").read_text(encoding="utf-8")),
        "arrived": len(steps) - len(unpushed) if summary["hub"] else 0,
    }


def arrived(log: str) -> int:
    """How many checkpoints were pushed before training was done, by its ``train.log``."""
    during = re.split(r"Done after step|Stopped early", log)[0]
    return sum(
        len(re.findall(r"(?:^|, )(?:checkpoint-|epoch_)\d+", names))
        for names in re.findall(r"pushed (.+) \([0-9a-f]{7}\)", during)
    )
