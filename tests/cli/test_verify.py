from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import inspection
from pitstop.checkpointing.disk.manifest import sealed, unsealed
from pitstop.checkpointing.runs import verification
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.cli import Cli
from support.housekeeping import DIGEST, checkpoints, make_run

BASE = Path("checkpoints")


@pytest.fixture
def run() -> RunDirectory:
    return make_run(BASE, steps=(1, 2, 3))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def states(content: Any) -> dict[tuple[str | None, str], str]:
    return {(part["run"], part["what"]): part["state"] for part in content["parts"]}


def make_newer(manifest: Path) -> None:
    content = unsealed(manifest.read_bytes(), "test")
    manifest.write_bytes(sealed({**content, "format_version": 99, "pitstop_version": "9.9"}))


def test_everything_is_verified_without_a_run_being_named(pitstop: Cli, run: RunDirectory) -> None:
    make_run(BASE, "other", steps=(1,))
    result = pitstop("verify", "--json")
    assert result.code == 0
    content = result.json()
    assert list(content) == ["base_dir", "ok", "checked", "damaged", "newer", "parts", "notes"]
    assert list(content["parts"][0]) == ["run", "what", "path", "state", "size_bytes", "problem"]
    assert (content["ok"], content["damaged"], content["notes"]) == (True, 0, [])
    json_files = ["config.json", "metadata.json"]
    assert list(states(content)) == [
        *(("run_001", what) for what in [*json_files, *checkpoints(1, 2, 3), "base_model"]),
        *(("run_002", what) for what in [*json_files, *checkpoints(1), "base_model"]),
        (None, f".base_models/{DIGEST}"),
    ]
    assert content["parts"][2]["size_bytes"] == run.store.list()[0].size
    text = pitstop("verify")
    assert (text.code, text.stderr) == (0, "11 checked, all as written\n")
    assert ["run_001", "checkpoint-1", "ok", "3.4", "KiB"] in [line.split() for line in text.stdout.splitlines()]


@pytest.mark.parametrize("ref", ["1", "run_001", "a-run", "checkpoints/run_001"])
def test_one_run_is_verified_by_any_of_its_names(pitstop: Cli, run: RunDirectory, ref: str) -> None:
    make_run(BASE, "other")
    assert {part["run"] for part in pitstop("verify", ref, "--json").json()["parts"]} == {"run_001"}


@pytest.mark.parametrize(
    ("ref", "name"), [("1@best", "checkpoint-2"), ("1@last", "checkpoint-3"), ("a-run@checkpoint-1", "checkpoint-1")]
)
def test_one_checkpoint_is_verified_alone(pitstop: Cli, run: RunDirectory, ref: str, name: str) -> None:
    flip(run.store.directory / "checkpoint-1" / "state.json")
    result = pitstop("verify", ref, "--json")
    assert [part["what"] for part in result.json()["parts"]] == [name]
    assert result.code == (4 if name == "checkpoint-1" else 0)


def test_a_changed_byte_is_found_and_the_file_is_named(pitstop: Cli, run: RunDirectory) -> None:
    flip(run.store.directory / "checkpoint-2" / "optimizer.safetensors")
    (run.store.directory / "checkpoint-3" / "state.json").unlink()
    result = pitstop("verify", "1")
    assert result.code == 4
    assert "damaged: " in result.stdout
    assert "checkpoint-2 is damaged: optimizer.safetensors changed" in result.stdout
    assert "checkpoint-3 is damaged: state.json is missing" in result.stdout
    assert "error: 2 of 6 are damaged: run_001 checkpoint-2, run_001 checkpoint-3" in result.stderr
    assert "nothing was changed" in result.stderr
    assert states(pitstop("verify", "--json").json())["run_001", "checkpoint-1"] == "ok"


def test_a_damaged_base_model_is_found_in_the_store_and_in_each_run(pitstop: Cli, run: RunDirectory) -> None:
    flip(run.path / "base_model" / "model.safetensors")
    result = pitstop("verify", "--json")
    bad = [where for where, state in states(result.json()).items() if state == "damaged"]
    assert (result.code, bad) == (4, [("run_001", "base_model"), (None, f".base_models/{DIGEST}")])
    assert "model.safetensors changed" in result.stdout and "makes it again" in result.stdout


def test_a_base_model_that_is_missing_or_only_referred_to_is_looked_for(pitstop: Cli, run: RunDirectory) -> None:
    linked = run.path / "base_model"
    linked.rename("elsewhere")
    result = pitstop("verify", "1")
    assert (result.code, "base_model is missing" in result.stdout) == (4, True)
    (run.path / "base_model.json").write_text(json.dumps({"digest": DIGEST}))
    assert pitstop("verify", "1").code == 0
    (BASE / ".base_models" / DIGEST).rename("gone")
    result = pitstop("verify", "1")
    assert (result.code, "there is no such directory" in result.stdout) == (4, True)
    (run.path / "base_model.json").write_text("{")
    assert states(pitstop("verify", "1", "--json").json())["run_001", "base_model.json"] == "damaged"


@pytest.mark.usefixtures("run")
def test_a_file_that_runs_share_is_hashed_once(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(BASE, "other")
    hashed: list[str] = []

    def count(path: Path) -> str:
        hashed.append(path.name)
        return inspection.file_sha256(path)

    monkeypatch.setattr(verification.storage, "file_sha256", count)
    assert pitstop("verify").code == 0
    assert hashed.count("model.safetensors") == 1
    assert hashed.count("state.json") == 8


def test_lost_and_damaged_json_files_are_problems_with_what_to_do(pitstop: Cli, run: RunDirectory) -> None:
    (run.path / "metadata.json").write_text("{")
    result = pitstop("verify", "1")
    assert result.code == 4
    assert "metadata.json: damaged" in result.stdout and "`pitstop resume run_001` rebuilds it" in result.stdout
    (run.path / "config.json").write_text("[]")
    content = pitstop("verify", "1", "--json").json()
    assert [part["what"] for part in content["parts"] if part["state"] == "damaged"] == ["config.json", "metadata.json"]
    assert [part["what"] for part in content["parts"] if part["what"].startswith("checkpoint")] == checkpoints(1, 2, 3)


def test_a_newer_format_is_no_damage_and_yet_cannot_be_used(pitstop: Cli, run: RunDirectory) -> None:
    make_newer(run.store.directory / "checkpoint-2" / "MANIFEST.json")
    make_newer(BASE / ".base_models" / DIGEST / "BASE_MANIFEST.json")
    run.update_metadata({"format_version": 99})
    result = pitstop("verify")
    assert result.code == 4
    assert "newer: written by a newer pitstop: " in result.stdout
    assert "written by pitstop 9.9 in format 99" in result.stdout
    assert "upgrade" in result.stderr and "damaged" not in result.stderr
    content = pitstop("verify", "--json").json()
    newer = [part["what"] for part in content["parts"] if part["state"] == "newer"]
    assert newer == ["metadata.json", "checkpoint-2", "base_model", f".base_models/{DIGEST}"]
    assert (content["ok"], content["damaged"], content["newer"]) == (False, 0, 4)


def test_wrong_pointers_and_lists_are_notes_that_cost_nothing(pitstop: Cli, run: RunDirectory) -> None:
    (run.store.directory / "last").unlink()
    run.store.set_pointer("last", "checkpoint-1")
    (run.store.directory / "best").unlink()
    metadata = run.metadata()
    run.update_metadata({"checkpoints": [*metadata.content["checkpoints"], {"name": "checkpoint-9"}]})
    result = pitstop("verify")
    assert result.code == 0
    assert "note: run_001: last points at checkpoint-1, should point at checkpoint-3; the next `pitstop resume`" in result.stdout
    assert "note: run_001: best is missing, should point at checkpoint-2" in result.stdout
    assert "note: run_001: metadata.json lists checkpoint-9, which is not there" in result.stdout
    with run.lock():
        assert "note" not in pitstop("verify").stdout, "a training moves them all the time"


def test_verifying_changes_nothing_and_needs_no_lock(pitstop: Cli, run: RunDirectory) -> None:
    flip(run.store.directory / "checkpoint-3" / "state.json")
    (run.store.directory / ".tmp-checkpoint-4-aa").mkdir()

    def everything() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in sorted(BASE.rglob("*"))}

    with run.lock():
        before = everything()
        assert pitstop("verify").code == 4
        assert everything() == before


def test_what_is_deleted_while_it_is_read_is_no_damage(pitstop: Cli, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verification.storage.file_sha256
    trash = run.store.directory / ".trash-checkpoint-2"

    def retire(path: Path) -> str:
        if path.parent.name == "checkpoint-2" and not trash.exists():
            path.parent.rename(trash)
        return real(path)

    monkeypatch.setattr(verification.storage, "file_sha256", retire)
    result = pitstop("verify", "1", "--json")
    assert result.code == 0
    assert [part["what"] for part in result.json()["parts"] if "checkpoint" in part["what"]] == checkpoints(1, 3)

    def delete(path: Path) -> str:
        if run.path.exists():
            run.path.rename(BASE / ".trash-run_001-aa")
        return real(path)

    monkeypatch.setattr(verification.storage, "file_sha256", delete)
    result = pitstop("verify", "--json")
    assert (result.code, result.json()["damaged"]) == (0, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(pitstop: Cli, run: RunDirectory) -> None:
    (run.store.directory / "checkpoint-1" / "state.json").chmod(0)
    assert "state.json cannot be read" in pitstop("verify").stdout


def test_what_is_not_there_is_said(pitstop: Cli) -> None:
    result = pitstop("verify")
    assert (result.code, result.stdout) == (2, "")
    assert "there is no directory checkpoints" in result.stderr
    BASE.mkdir()
    assert pitstop("verify").code == 0
    assert "nothing to verify" in pitstop("verify").stderr
    assert pitstop("verify", "--json").json()["checked"] == 0
    make_run(BASE, steps=(1,))
    result = pitstop("verify", "7")
    assert (result.code, "there: run_001" in result.stderr) == (2, True)
    result = pitstop("verify", "1@epoch_3")
    assert (result.code, "checkpoint 'epoch_003' not found" in result.stderr) == (4, True)
