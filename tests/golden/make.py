"""Make a golden run: ``python tests/golden/make.py format-1``, when a release brings a new format version.

What is made stays as it is from that release on; tests/e2e/test_golden.py shows that every later version can go on from it.
Everything in it is relative, so that it names no place of the machine that made it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SETTINGS = {"method": "lora", "lora_rank": 1, "lora_target_modules": "q_proj", "save_strategy": "steps", "save_steps": 4}


def main(name: str) -> int:
    """Train a model of a few kilobytes for an epoch, and keep what it takes to resume it."""
    sys.path.insert(0, str(HERE.parent))
    from pitstop.cli.main import main as pitstop
    from support.tiny_model import make_tiny_model, write_records
    from support.training import arguments

    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    os.chdir(target)
    make_tiny_model(Path("model"), hidden=16)
    write_records(Path("train.jsonl"), 12)
    write_records(Path("eval.jsonl"), 4, start=100)
    code = pitstop(arguments(Path("model"), Path(), Path("runs"), epochs=1, no_save_base_model=True, **SETTINGS))
    for unneeded in ("logs/train.log", ".lock"):
        Path("runs/run_001", unneeded).unlink(missing_ok=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
