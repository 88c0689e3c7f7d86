"""Runs of each released format, kept as they were written, are read and gone on with by this version.

``tests/golden/make.py`` makes one. A test here fails when a change would leave users' old runs behind: then the change
needs a new format version and a reader for the old one, not a new golden run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.manifest import FORMAT_VERSION, sealed, unsealed
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.fault_matrix import Matrix
from support.forked import pitstop
from support.training import checkpoints, rows

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FORMATS = sorted(path.name for path in GOLDEN.glob("format-*"))

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("warm", "onednn")]

ROW = "golden checkpoints of each released format version"


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a golden run's home; the current directory is in it, as the paths in it are relative."""
    home = tmp_path / "home"
    shutil.copytree(GOLDEN / request.param, home, symlinks=True)
    monkeypatch.chdir(home)
    return home


def test_every_format_up_to_the_present_one_has_a_golden_run() -> None:
    assert FORMATS == [f"format-{version}" for version in range(1, FORMAT_VERSION + 1)]


def test_every_checkpoint_of_a_golden_run_is_verified_byte_by_byte(golden: Path) -> None:
    run = RunDirectory(golden / "runs/run_001")
    entries = run.store.verify_all()
    assert [(entry.name, entry.problem) for entry in entries] == [
        ("checkpoint-4", None),
        ("checkpoint-8", None),
        ("epoch_001", None),
        ("epoch_002", None),
    ]
    assert (run.store.resolve("best").name, run.store.resolve("last").step) == ("epoch_002", 12)
    assert [(record.run_number, record.status, record.checkpoints) for record in list_runs(golden / "runs")] == [
        (1, "completed", 4)
    ]


def test_a_golden_run_is_gone_on_with_from_its_end_and_from_its_middle(golden: Path, matrix: Matrix) -> None:
    run = golden / "runs/run_001"
    row = matrix(ROW)
    before = rows(run)
    with row.trial("from its end"):
        ended = pitstop("resume", 1, "--base-dir", "runs", "--epochs", 3)
        assert ended.code == 0, ended.output
        assert "from epoch_002: step 12" in ended.output
        assert checkpoints(run)[-1] == "epoch_003"
        assert rows(run)[: len(before)] == before and rows(run)[-1]["step"] == 18
    with row.trial("from its middle"):
        ended = pitstop("resume", "1@checkpoint-8", "--base-dir", "runs")
        assert ended.code == 0, ended.output
        assert "from checkpoint-8: step 8, epoch 1.36" in ended.output
        assert [row["step"] for row in rows(run)] == list(range(1, 13))
        assert rows(run)[:8] == before[:8]
        assert rows(run)[8]["tokens"] == before[8]["tokens"], "the same batch comes next"
        assert rows(run)[8]["loss"] == pytest.approx(before[8]["loss"], rel=0.05)


def test_a_run_of_the_version_before_is_gone_on_with_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processor and the libraries are those that it was made on; elsewhere the resume says that they are not, and comes close."""
    shutil.copytree(GOLDEN / "exact-1", tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    run = tmp_path / "home/runs/run_001"
    before, weights = rows(run), run / "lora_weights"
    expected = {path.name: path.read_bytes() for path in (weights / "epoch_002").iterdir() if path.suffix == ".safetensors"}
    assert len(expected) == 3, "adapter, optimizer and average"
    ended = pitstop("resume", "1@checkpoint-3", "--base-dir", "runs")
    assert ended.code == 0, ended.output
    assert [row["step"] for row in rows(run)] == list(range(1, 13))
    if "not bit for bit" in ended.output:
        assert [row["loss"] for row in rows(run)] == pytest.approx([row["loss"] for row in before], rel=0.05)
        return
    assert {name: (weights / "epoch_002" / name).read_bytes() for name in expected} == expected
    timed = {"step_s", "tokens_per_s"}
    assert [{key: row[key] for key in row.keys() - timed} for row in rows(run)] == [
        {key: row[key] for key in row.keys() - timed} for row in before
    ]


def test_a_checkpoint_of_a_later_format_is_refused_by_name_and_left_alone(golden: Path, matrix: Matrix) -> None:
    manifest = golden / "runs/run_001/lora_weights/epoch_002/MANIFEST.json"
    content = unsealed(manifest.read_bytes(), "there")
    later = {**content, "format_version": FORMAT_VERSION + 1, "pitstop_version": "9.9.9", "new_key": 1}
    manifest.write_bytes(sealed(later))
    before = sorted(path for path in golden.rglob("*") if path.name != ".lock")
    with matrix(ROW).trial(f"{golden.name}, as of a later version"):
        ended = pitstop("resume", 1, "--base-dir", "runs", "--epochs", 3)
        assert ended.code == 4, ended.output
        assert "written by pitstop 9.9.9" in ended.output and "upgrade" in ended.output
        assert sorted(path for path in golden.rglob("*") if path.name != ".lock") == before


def test_a_golden_runs_checkpoint_holds_what_the_format_promises(golden: Path) -> None:
    content = json.loads((golden / "runs/run_001/lora_weights/checkpoint-8/trainer_state.json").read_text())
    assert content["format_version"] == 1
    assert {"global_step", "epoch", "progress", "settings", "environment", "scaler"} <= content.keys()
    assert (content["progress"]["step"], content["progress"]["position"]) == (8, 4)
