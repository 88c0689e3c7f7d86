"""Run one side once, in a fresh process, and read what it logged of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import usable_cpus, versions
from benchmarks.vs_trl.cases import Case
from benchmarks.vs_trl.environment import PYTHON as TRL_PYTHON
from benchmarks.vs_trl.workload import Hyperparameters
from pitstop.configs.leaves import leaves

TRL_SIDE = Path(__file__).with_name("trl_side.py")
PITSTOP_PACKAGES = ("pitstop", "torch", "transformers", "peft", "accelerate")


@dataclass(frozen=True)
class Job:
    """What to train: a model directory, pairs of prompt and completion, and how."""

    model: Path
    data: Path
    hyperparameters: Hyperparameters
    case: Case


@dataclass(frozen=True)
class Run:
    """One finished run of a side.

    ``losses`` and ``step_s`` have one entry an optimizer step, ``peak_bytes`` is the largest resident memory that the
    process had from start to exit, ``tokens`` the tokens trained on, padding not counted.
    """

    losses: list[float]
    step_s: list[float]
    peak_bytes: int
    tokens: int
    details: dict[str, Any]

    @property
    def train_s(self) -> float:
        """Seconds from the first to the last optimizer step."""
        return sum(self.step_s)


class SideFailed(RuntimeError):
    """A side's process ended badly; the message ends with its last words."""


def run_trl(job: Job, work: Path) -> Run:
    """Train ``job`` with TRL in its own environment; ``work`` is an empty directory."""
    result_path = work / "result.json"
    paths = {"model": str(job.model), "data": str(job.data), "output": str(work / "output"), "result": str(result_path)}
    (work / "job.json").write_text(json.dumps({**asdict(job.hyperparameters), **paths, "trl": job.case.trl}), encoding="utf-8")
    peak = run_measured([str(TRL_PYTHON), str(TRL_SIDE), str(work / "job.json")], work)
    result = json.loads(result_path.read_text(encoding="utf-8"))
    steps = result.pop("steps")
    return Run(
        losses=[row["loss"] for row in steps],
        step_s=[row["step_s"] for row in steps],
        peak_bytes=peak,
        tokens=sum(result["lengths"]) * job.hyperparameters.epochs,
        details=result,
    )


def run_pitstop(job: Job, work: Path) -> Run:
    """Train ``job`` with the ``pitstop`` of this environment; ``work`` is an empty directory."""
    peak = run_measured([sys.executable, "-m", "pitstop.cli", *pitstop_arguments(job, work / "checkpoints")], work)
    log = (work / "checkpoints" / "run_001" / "logs" / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in log.splitlines()]
    return Run(
        losses=[row["loss"] for row in rows],
        step_s=[row["step_s"] for row in rows],
        peak_bytes=peak,
        tokens=rows[-1]["tokens"],
        details={"versions": versions(PITSTOP_PACKAGES)},
    )


def pitstop_arguments(job: Job, base_dir: Path) -> list[str]:
    """Return the arguments of ``pitstop`` that train ``job`` into ``base_dir``."""
    h = job.hyperparameters
    flags = {
        "--method": "lora",
        "--model-id": job.model,
        "--dataset": job.data,
        "--base-dir": base_dir,
        "--batch-size": h.batch_size,
        "--gradient-accumulation-steps": h.accumulation,
        "--epochs": h.epochs,
        "--learning-rate": h.learning_rate,
        "--lr-scheduler": "linear",
        "--warmup-ratio": 0,
        "--weight-decay": h.weight_decay,
        "--max-grad-norm": h.max_grad_norm,
        "--max-length": h.max_length,
        "--lora-rank": h.rank,
        "--lora-alpha": h.alpha,
        "--lora-dropout": h.dropout,
        "--lora-target-modules": h.target_modules,
        "--seed": h.seed,
        "--logging-steps": 1,
        "--save-strategy": "no",
    }
    return ["train", *(str(word) for pair in flags.items() for word in pair), "--no-save-base-model", *job.case.pitstop]


def run_measured(command: Sequence[str], work: Path) -> int:
    """Run ``command`` in ``work`` and return its peak resident memory in bytes; raise ``SideFailed`` where it fails."""
    log = work / "output.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, cwd=work, env=environment(work), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise SideFailed(f"{' '.join(command[:3])} … exited with {child.returncode}:\n{tail}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def environment(work: Path) -> dict[str, str]:
    """Return the environment of both sides: none of our settings, no network, the same number of threads, CPU only."""
    settings = {leaf.env for leaf in leaves()}
    inherited = {k: v for k, v in os.environ.items() if k not in settings and not k.startswith("PITSTOP_")}
    return inherited | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(work / "hf"),
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(usable_cpus()),
    }
