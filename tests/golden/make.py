"""Makes golden runs: ``python tests/golden/make.py format-1``, once a format, before its release, and ``… exact-1``.

A tiny run with a save by epoch and one by step, in a directory that can be copied anywhere: all paths in it are relative,
and what tells of the machine is left out. A run called ``exact-…`` is made by the version before a large change, with
``OMP_NUM_THREADS=1``. It keeps the processor's model on record, because its bits are the same only where the processor is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.tiny_model import make_tiny_model, write_data

HERE = Path(__file__).resolve().parent
LEFT_OUT = (".lock", "train.log", "events.out.*")
SETTINGS = {
    "--model-id": "model", "--dataset": "train.jsonl", "--eval-dataset": "eval.jsonl", "--base-dir": "runs",
    "--max-length": 64, "--epochs": 2, "--batch-size": 1, "--gradient-accumulation-steps": 2, "--eval-steps": 4, "--logging-steps": 1,
    "--learning-rate": 1e-2, "--lora-rank": 2, "--lora-alpha": 4, "--optimizer": "adamw", "--keep-last-n": 5,
}  # fmt: skip

# With everything that draws random numbers or has state of its own, so that a resume has all of it to give back.
EXACT = {
    **SETTINGS,
    "--lora-dropout": 0.1,
    "--ema-decay": 0.9,
    "--eval-steps": 3,
    "--lr-scheduler": "cosine",
    "--warmup-ratio": 0.2,
}


def main(name: str) -> None:
    """Train in a temporary directory and keep what is to be kept of it in ``tests/golden/<name>``."""
    target = HERE / name
    if target.exists():
        raise SystemExit(f"{target} exists; a golden run is never made again")
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        make_tiny_model(Path("model"), hidden=16)
        write_data(Path(), 16, 4)
        _train(EXACT if name.startswith("exact-") else SETTINGS, masked=not name.startswith("exact-"))
        for path in list(Path().rglob("*")):
            if any(path.match(pattern) for pattern in LEFT_OUT):
                path.unlink()
        shutil.copytree(work, target, symlinks=True)


def _train(settings: dict[str, object], *, masked: bool) -> None:
    from pitstop.cli.main import main as pitstop
    from pitstop.trainers.machine import environment

    if masked:
        environment.processor = lambda: "golden"
    words = [str(word) for flag, value in settings.items() for word in (flag, value)]
    if pitstop(["train", *words]) != 0:
        raise SystemExit("the training failed")


if __name__ == "__main__":
    main(sys.argv[1])
