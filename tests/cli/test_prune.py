from __future__ import annotations

import os
from pathlib import Path

import pytest

from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.cli import Cli
from support.housekeeping import DIGEST, UNUSED, checkpoints, litter, make_run, names, place_base
from support.stores import failing

BASE = Path("checkpoints")


@pytest.fixture
def run() -> RunDirectory:
    return make_run(BASE, resumed_from=3)


def bytes_on_disk() -> int:
    """Of everything but locks and metadata, which are written anew."""
    files = [path for path in BASE.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != ".lock"]
    statuses = {
        path.lstat().st_ino: path.lstat().st_size for path in files if path.name != "metadata.json" and not path.is_symlink()
    }
    return sum(statuses.values())


def test_each_run_is_thinned_by_its_own_setting(pitstop: Cli, run: RunDirectory) -> None:
    generous = make_run(BASE, "generous", keep_last_n=3)
    result = pitstop("prune")
    assert result.code == 0
    assert names(run) == checkpoints(2, 3, 5)
    assert names(generous) == checkpoints(2, 3, 4, 5)
    assert "run_001  checkpoint-1  checkpoint" in result.stdout
    assert "freed " in result.stdout and ": 3 checkpoints\n" in result.stdout
    assert {record.run: record.checkpoints for record in list_runs(BASE)} == {"run_001": 3, "run_002": 4}
    again = pitstop("prune")
    assert (again.code, again.stdout) == (0, "nothing to prune in checkpoints\n")


def test_a_dry_run_lists_exactly_what_would_go_and_deletes_nothing(pitstop: Cli, run: RunDirectory) -> None:
    (run.store.directory / ".tmp-checkpoint-9-aa").mkdir()
    (run.store.directory / ".tmp-checkpoint-9-aa" / "half").write_bytes(b"x" * 500)
    place_base(BASE, UNUSED)
    BaseModels(BASE).link_into(run.path, DIGEST)  # ends the wait of the training that placed it
    before = bytes_on_disk()
    dry = pitstop("prune", "--dry-run", "--json")
    assert bytes_on_disk() == before
    assert names(run) == checkpoints(1, 2, 3, 4, 5)
    real = pitstop("prune", "--json")
    assert (dry.code, real.code) == (0, 0)
    assert dry.json() == {**real.json(), "dry_run": True}
    content = real.json()
    assert list(content) == ["base_dir", "dry_run", "freed_bytes", "removed", "failed", "runs"]
    assert [(item["name"], item["kind"]) for item in content["removed"]] == [
        (".tmp-checkpoint-9-aa", "leftover"),
        ("checkpoint-1", "checkpoint"),
        ("checkpoint-4", "checkpoint"),
        (f".base_models/{UNUSED}", "base model"),
    ]
    assert content["freed_bytes"] == sum(item["size_bytes"] for item in content["removed"]) > 11_000
    assert content["freed_bytes"] == before - bytes_on_disk()


def test_pins_are_told_with_their_reasons(pitstop: Cli, run: RunDirectory) -> None:
    content = pitstop("prune", "1", "--json").json()
    assert content["runs"] == [
        {
            "run": "run_001",
            "run_number": 1,
            "keep_last_n": 1,
            "pins": {"checkpoint-2": ["best"], "checkpoint-3": ["resumed from"], "checkpoint-5": ["last"]},
            "left_out": None,
        }
    ]
    assert names(run) == checkpoints(2, 3, 5)


def test_only_the_newest_start_of_a_resume_is_kept_and_show_says_the_same(pitstop: Cli, run: RunDirectory) -> None:
    run.record_resume(run.store.resolve("checkpoint-4"), {})
    shown = {entry["name"]: entry["pins"] for entry in pitstop("show", "1", "--json").json()["checkpoints"]}
    assert {name for name, pins in shown.items() if pins} == set(checkpoints(2, 4, 5))
    pitstop("prune", "1")
    assert names(run) == checkpoints(2, 4, 5)
    assert "from checkpoint-3 (step 3)" in pitstop("show", "1").stdout, "it is still told that it was resumed"


def test_the_number_on_the_command_line_wins(pitstop: Cli, run: RunDirectory) -> None:
    pitstop("prune", "run_001", "--keep-last-n", "2")
    assert names(run) == checkpoints(2, 3, 4, 5)
    for wrong in ("0", "-1", "many"):
        result = pitstop("prune", "1", "--keep-last-n", wrong)
        assert (result.code, "--keep-last-n" in result.stderr) == (2, True)
    assert names(run) == checkpoints(2, 3, 4, 5)


def test_a_run_that_keeps_all_says_so_and_its_leftovers_still_go(pitstop: Cli) -> None:
    run = make_run(BASE, keep_last_n=None)
    (run.logs_dir / ".tmp-metrics.jsonl-aa").write_text("half")
    result = pitstop("prune", "1")
    assert result.code == 0
    assert "run_001 keeps all its checkpoints (keep_last_n is none); --keep-last-n N thins it" in result.stderr
    assert names(run) == checkpoints(1, 2, 3, 4, 5)
    assert litter(BASE) == []
    pitstop("prune", "1", "--keep-last-n", "1")
    assert names(run) == checkpoints(2, 5)


def test_a_run_in_use_is_left_out_and_refused_when_it_is_named(pitstop: Cli, run: RunDirectory) -> None:
    other = make_run(BASE, "other")
    for more in ([], ["--dry-run"]):
        with run.lock({"command": "train"}):
            result = pitstop("prune", "1", *more)
            assert (result.code, result.stdout) == (2, "")
            assert f"run_001 is in use by process {os.getpid()} on " in result.stderr
    with run.lock({"command": "train"}):
        result = pitstop("prune")
        assert result.code == 0
        assert f"left out: run_001 is in use by process {os.getpid()} on " in result.stderr
    assert names(run) == checkpoints(1, 2, 3, 4, 5)
    assert names(other) == checkpoints(2, 5)


def test_a_checkpoint_cannot_be_pruned(pitstop: Cli, run: RunDirectory) -> None:
    result = pitstop("prune", "1@checkpoint-1")
    assert (result.code, "is one checkpoint" in result.stderr, "--keep-last-n" in result.stderr) == (2, True, True)
    assert names(run) == checkpoints(1, 2, 3, 4, 5)


def test_what_was_set_aside_stays_unless_asked_for(pitstop: Cli, run: RunDirectory) -> None:
    run.store.supersede(4)
    (BASE / ".base_models" / ".damaged" / "old").mkdir(parents=True)
    pitstop("prune")
    assert [path.name for path in run.store.set_aside(".superseded")] == ["checkpoint-5"]
    assert (BASE / ".base_models" / ".damaged" / "old").is_dir()
    dry = pitstop("prune", "--set-aside", "--dry-run")
    assert ".superseded (checkpoint-5)" in dry.stdout and ".base_models/.damaged (old)" in dry.stdout
    assert run.store.set_aside(".superseded")
    pitstop("prune", "--set-aside")
    assert not run.store.set_aside(".superseded")
    assert not (BASE / ".base_models" / ".damaged").exists()
    assert names(run) == checkpoints(2, 3, 4)


def test_base_models_in_use_stay_and_one_run_alone_frees_none(pitstop: Cli, run: RunDirectory) -> None:
    place_base(BASE, UNUSED)
    BaseModels(BASE).link_into(run.path, DIGEST)
    pitstop("prune", "1")
    assert BaseModels(BASE).digests() == [DIGEST, UNUSED]
    pitstop("prune")
    assert BaseModels(BASE).digests() == [DIGEST]
    assert BaseModels(BASE).base_path(run.path) == run.path.absolute() / "base_model"


def test_a_base_model_that_a_training_is_about_to_use_is_left_out(pitstop: Cli) -> None:
    place_base(BASE, UNUSED)
    result = pitstop("prune")
    assert result.code == 0
    assert f"base models are left out: the store of base models is in use by process {os.getpid()}" in result.stderr
    assert BaseModels(BASE).digests() == [UNUSED]


def test_damage_leaves_that_run_out_and_the_others_are_done(pitstop: Cli, run: RunDirectory) -> None:
    lost = make_run(BASE, "lost")
    other = make_run(BASE, "other")
    path = run.store.directory / "checkpoint-5" / "state.json"
    path.write_bytes(path.read_bytes()[::-1])
    (lost.path / "metadata.json").write_text("{")
    result = pitstop("prune")
    assert result.code == 4
    assert "run_001 was not pruned, since a checkpoint that would stay is damaged" in result.stderr
    assert "metadata.json: damaged" in result.stderr and "`pitstop resume run_002` rebuilds it" in result.stderr
    assert "error: left out: run_001, run_002" in result.stderr
    assert other.store.names() == checkpoints(2, 5)
    assert run.store.names() == lost.store.names() == checkpoints(1, 2, 3, 4, 5)
    assert pitstop("prune", "2").code == 4


def test_what_refuses_to_go_is_named_and_the_rest_goes(pitstop: Cli, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    from pitstop.checkpointing.disk.storage import LocalStorage

    real = LocalStorage.rename

    def rename(self: LocalStorage, source: Path, target: Path) -> None:
        if source.name == "checkpoint-1":
            failing(13)()
        real(self, source, target)

    monkeypatch.setattr(LocalStorage, "rename", rename)
    result = pitstop("prune", "1")
    assert result.code == 6
    assert "checkpoint-1 could not be removed: Permission denied" in result.stderr
    assert "checkpoint-4" in result.stdout
    assert names(run) == checkpoints(1, 2, 3, 5)


def test_leftovers_of_a_deletion_go(pitstop: Cli, run: RunDirectory) -> None:
    gone = make_run(BASE, "gone")
    gone.path.rename(BASE / ".trash-run_002-aa")
    result = pitstop("prune", "1")
    assert ".trash-run_002-aa" in result.stdout and "by-name/gone" in result.stdout
    assert litter(BASE) == []
    assert not (BASE / "by-name" / "gone").is_symlink()


def test_a_directory_that_is_not_there_is_said(pitstop: Cli) -> None:
    result = pitstop("prune", "--base-dir", "nowhere")
    assert (result.code, "there is no directory nowhere" in result.stderr) == (2, True)
    BASE.mkdir()
    assert pitstop("prune").stdout == "nothing to prune in checkpoints\n"
