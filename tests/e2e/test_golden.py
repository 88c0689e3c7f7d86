"""Runs that earlier versions made can be read and resumed; what a later version made is refused by name and left alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pitstop.checkpointing import layout
from pitstop.checkpointing.manifest import FORMAT_VERSION, sealed
from pitstop.checkpointing.store import CheckpointStore
from support.fault_matrix import Matrix
from support.forked import pitstop
from support.training import checkpoints

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("warm")]

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
ROW = "golden checkpoints of each released format version"


def test_there_is_a_golden_run_of_each_format_version() -> None:
    assert {path.name for path in GOLDEN.glob("format-*")} == {f"format-{n}" for n in range(1, FORMAT_VERSION + 1)}


@pytest.fixture(params=sorted(path.name for path in GOLDEN.glob("format-*")))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / request.param, symlinks=True))


def resume(golden: Path, *more: object) -> tuple[int, str]:
    ended = pitstop("resume", 1, "--base-dir", "runs", "--epochs", 2, *more, prepare=lambda: os.chdir(golden))
    return ended.code, ended.output


def test_a_golden_run_is_whole_and_goes_on(golden: Path, matrix: Matrix) -> None:
    run = golden / "runs/run_001"
    with matrix(ROW).trial(golden.name):
        entries = CheckpointStore(run / "lora_weights").verify_all()
        assert len(entries) > 1
        assert [entry.problem for entry in entries if entry.problem] == []
        code, output = resume(golden)
        assert code == 0, output
        newest = max(entries, key=lambda entry: entry.info.step if entry.info else 0)
        assert f"from {newest.name}: step" in output
        assert len(checkpoints(run)) > len(entries)


def test_a_checkpoint_of_a_later_format_is_refused_by_name_and_left_alone(golden: Path, matrix: Matrix) -> None:
    run = golden / "runs/run_001"
    manifest = (run / "lora_weights/last").resolve() / layout.MANIFEST
    content = json.loads(manifest.read_bytes())
    del content["digest"]
    manifest.chmod(0o600)
    manifest.write_bytes(sealed({**content, "format_version": FORMAT_VERSION + 1, "pitstop_version": "9.9.9"}))
    before = sorted(run.rglob("*"))
    with matrix(ROW).trial(f"{golden.name}, as of a later version"):
        code, output = resume(golden)
        assert code == 4, output
        assert "written by pitstop 9.9.9" in output
        assert "upgrade" in output
        assert [path for path in before if not path.exists() and not path.is_symlink()] == []
