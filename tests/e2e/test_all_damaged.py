"""A run none of whose checkpoints can be used is refused with exit code 4, and nothing of it is deleted."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fault_matrix import Matrix
from support.forked import pitstop
from support.trials import Trainings

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("warm")]

SETTINGS = {"method": "lora", "no_packing": True, "save_strategy": "steps", "save_steps": 4, "keep_last_n": "none"}


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def lengthen(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def lose(path: Path, rng: random.Random) -> None:
    path.rename(path.parent.parent.parent / f"lost-{path.parent.name}-{path.name}")


def add(path: Path, rng: random.Random) -> None:
    (path.parent / "optimizer.pt").write_bytes(b"\x80\x04.")


HARMS: list[Callable[[Path, random.Random], None]] = [flip, cut, lengthen, lose, add]


def everything(run: Path) -> list[tuple[str, int]]:
    """Names (not paths: things are set aside) and sizes of all files of the checkpoints."""
    files = [path for path in run.rglob("*") if path.is_file() and "lora_weights" in path.parts]
    return sorted((path.name, path.stat().st_size) for path in files if not path.name.endswith(".reason.txt"))


def test_when_no_checkpoint_is_whole_it_ends_with_code_4_and_deletes_nothing(
    trainings: Trainings, tmp_path: Path, matrix: Matrix
) -> None:
    row = matrix("every checkpoint bad")
    whole = trainings.reference("all damaged", SETTINGS).run
    for number in row.numbers():
        rng = random.Random(number)
        run = tmp_path / str(number) / "run_001"
        shutil.copytree(whole, run, symlinks=True)
        names = [path.name for path in (run / "lora_weights").iterdir() if path.is_dir() and not path.is_symlink()]
        for name in names:
            files = sorted(path for path in (run / "lora_weights" / name).iterdir() if path.is_file())
            rng.choice(HARMS)(rng.choice(files), rng)
        before = everything(run)
        with row.trial(f"seed {number}"):
            for _ in range(2):  # again: it is no less clear the second time, when all are set aside already
                ended = pitstop("resume", run, "--epochs", 3)
                assert ended.code == 4, ended.output
                assert "Traceback" not in ended.output
                assert everything(run) == before
            aside = [path for path in (run / "lora_weights/.damaged").iterdir() if path.is_dir() and not path.is_symlink()]
            assert {path.name for path in aside} == set(names)
        shutil.rmtree(run.parent)
