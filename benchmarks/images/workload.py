"""The data and the two trainings, through the command line."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.logs import rows, speed
from benchmarks.vs_trl.sides import environment
from pitstop.checkpointing.disk.tensor_headers import read_header

BATCH = 32
FOOTWEAR = ("sandal", "sneaker", "ankle boot")
_HEADERS = {"images": 16, "labels": 8}  # bytes before the values of an IDX file
_SIDE = 28


class Failed(RuntimeError):
    """A command of Pitstop ended with an error."""


def prepare(source: Path, target: Path, *, validation: int) -> Path:
    """Lay out the training half of Fashion-MNIST, and the first images of its test half to validate on, as a directory of IDX files.

    Raises ``FileNotFoundError`` where ``source`` lacks one of the four files.
    """
    target.mkdir(parents=True)
    for kind, name in (("images", "images-idx3-ubyte"), ("labels", "labels-idx1-ubyte")):
        (target / f"train-{name}.gz").symlink_to((source / f"train-{name}.gz").resolve(strict=True))
        content = gzip.decompress((source / f"t10k-{name}.gz").read_bytes())
        header, each = _HEADERS[kind], _SIDE * _SIDE if kind == "images" else 1
        values = content[header : header + validation * each]
        count = (len(values) // each).to_bytes(4)
        (target / f"t10k-{name}").write_bytes(content[:4] + count + content[8:header] + values)
    return target


@dataclass(frozen=True)
class Stage:
    """A training: its run's reference and directory, images and seconds of its steps, and its evaluations as (step, loss)."""

    ref: str
    path: Path
    images: int
    seconds: float
    evaluations: list[tuple[int, float]]
    parameters: int
    checkpoint_bytes: int


def pitstop(work: Path, *words: object) -> dict[str, Any]:
    """Run a command with ``--json`` in ``work`` and return what it printed. Raises ``Failed``."""
    command = [sys.executable, "-P", "-m", "pitstop.cli", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=work, env=environment(work), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"pitstop {' '.join(map(str, words))} exited with {done.returncode}:\n{done.stderr[-2000:]}")
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def base_words(data: Path, steps: int, *, evaluations: int = 5) -> list[object]:
    """The first stage."""
    return [
        "train", "--task", "diffusion", "--method", "full", "--dataset", data, "--model-config", "diffit-cpu",
        "--data-label", "Clothes", "--batch-size", BATCH, "--learning-rate", 2e-3, "--ema-decay", 0.998,
        *_schedule(steps, evaluations),
    ]  # fmt: skip


def lora_words(data: Path, steps: int, *, base: str, evaluations: int = 3) -> list[object]:
    """The second stage."""
    return [
        "train", "--task", "diffusion", "--method", "lora", "--from", f"{base}@best", "--dataset", data,
        "--classes", ",".join(FOOTWEAR), "--data-label", "Footwear", "--config", "blockwise_config",
        "--batch-size", BATCH, "--learning-rate", 1e-3, "--ema-decay", 0.995, *_schedule(steps, evaluations),
    ]  # fmt: skip


def _schedule(steps: int, evaluations: int) -> list[object]:
    every = max(1, steps // evaluations)
    return ["--max-steps", steps, "--eval-steps", every, "--save-strategy", "steps", "--save-steps", every, "--logging-steps", 1]


def train(work: Path, words: Sequence[object]) -> Stage:
    """Train one stage. Raises ``Failed``."""
    path = Path(pitstop(work, *words)["path"])
    logged = rows(path)
    ref = f"{path.parent.name}/{int(path.name.removeprefix('run_'))}".removeprefix("checkpoints/")
    newest = max((*path.glob("checkpoints/checkpoint-*"), *path.glob("lora_weights/checkpoint-*")), key=_step)
    weights = newest / "model.safetensors"
    return Stage(
        ref=ref,
        path=path,
        images=int(logged[-1]["images"]),
        seconds=sum(row["step_s"] for row in logged),
        evaluations=[(row["step"], row["val_loss"]) for row in logged if "val_loss" in row],
        parameters=_numbers(weights if weights.exists() else newest / "adapter_model.safetensors"),
        checkpoint_bytes=sum(file.stat().st_size for file in newest.iterdir()),
    )


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _numbers(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    return sum(math.prod(entry.shape) for entry in read_header(file).values())


def images_per_s(work: Path, words: Sequence[object]) -> float:
    """The speed of a few steps, the first left out. Raises ``Failed``."""
    path = Path(
        pitstop(work, *words, "--max-steps", 8, "--eval-steps", 1000, "--sample-images", 0, "--save-strategy", "no")["path"]
    )
    return speed(rows(path), "images")
