from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.cli import Cli
from support.housekeeping import DIGEST, checkpoints, litter, make_run, names
from support.stores import failing

BASE = Path("checkpoints")


@pytest.fixture
def kept() -> RunDirectory:
    return make_run(BASE, "kept")


@pytest.fixture
def run(kept: RunDirectory) -> RunDirectory:
    return make_run(BASE, "a-run")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdin", Terminal(f"{text}\n"))


def runs() -> list[str]:
    return [record.run for record in list_runs(BASE)]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("ref", ["2", "run_002", "a-run", "checkpoints/run_002"])
def test_a_run_is_deleted_by_any_of_its_names_and_its_number_is_free(pitstop: Cli, ref: str) -> None:
    result = pitstop("delete", ref, "--yes")
    assert result.code == 0
    assert result.stdout.startswith("deleted run_002 (a-run): freed ")
    assert runs() == ["run_001"]
    assert "a-run" not in pitstop("list-runs").stdout
    assert sorted(path.name for path in BASE.iterdir()) == [".base_models", "by-name", "run_001"]
    assert make_run(BASE, "new").number == 2


def test_without_a_terminal_it_must_be_told_yes(pitstop: Cli, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    result = pitstop("delete", "2")
    assert (result.code, result.stdout) == (2, "")
    assert "there is no terminal to ask" in result.stderr and "--yes" in result.stderr
    assert names(run) == checkpoints(1, 2, 3, 4, 5)


def test_on_a_terminal_it_asks_and_no_keeps_all(pitstop: Cli, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("n", "", "no"):
        answer(monkeypatch, text)
        result = pitstop("delete", "2")
        assert result.code == 2
        assert "5 checkpoints and logs" in result.stderr and "Delete run_002 for good? [y/N]" in result.stderr
        assert names(run) == checkpoints(1, 2, 3, 4, 5)
    answer(monkeypatch, "y")
    assert pitstop("delete", "2").code == 0
    assert runs() == ["run_001"]


def test_a_dry_run_tells_what_is_freed_and_what_stays(pitstop: Cli, run: RunDirectory) -> None:
    text = pitstop("delete", "2", "--dry-run")
    assert text.code == 0
    assert "would free " in text.stdout and "5 checkpoints" in text.stdout
    assert "base model (" in text.stdout and "stays: other runs share it" in text.stdout
    dry = pitstop("delete", "2", "--dry-run", "--json").json()
    assert names(run) == checkpoints(1, 2, 3, 4, 5)
    real = pitstop("delete", "2", "-y", "--json").json()
    assert list(dry) == [
        "run",
        "run_number",
        "name",
        "path",
        "status",
        "checkpoints",
        "dry_run",
        "deleted",
        "freed_bytes",
        "shared_base_bytes",
        "base_becomes_unused",
        "finished_earlier_deletion",
        "hub",
    ]
    assert (dry["dry_run"], dry["deleted"], real["dry_run"], real["deleted"]) == (True, False, False, True)
    assert real["freed_bytes"] - dry["freed_bytes"] < 200, "the lock's word"
    assert dry["shared_base_bytes"] > 3000 and dry["base_becomes_unused"] is False


def test_a_base_that_no_run_uses_any_more_is_said_and_prune_frees_it(pitstop: Cli, kept: RunDirectory) -> None:
    dry = pitstop("delete", "1", "--dry-run")
    assert "no other run uses it: `pitstop prune` frees it" in dry.stdout
    assert "`pitstop prune` frees it" in pitstop("delete", "1", "--yes").stdout
    assert BaseModels(BASE).digests() == [DIGEST]
    pitstop("prune")
    assert BaseModels(BASE).digests() == []


def test_a_run_in_use_is_refused_and_the_process_is_named(pitstop: Cli, run: RunDirectory) -> None:
    with run.lock({"command": "train"}):
        for more in (["--yes"], ["--dry-run"], []):
            result = pitstop("delete", "2", *more)
            assert (result.code, result.stdout) == (2, "")
            assert f"run_002 is in use by process {os.getpid()} on " in result.stderr
    assert names(run) == checkpoints(1, 2, 3, 4, 5)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("ref", ["2@best", "a-run@checkpoint-1", "checkpoints/run_002/lora_weights/last"])
def test_one_checkpoint_cannot_be_deleted(pitstop: Cli, ref: str) -> None:
    result = pitstop("delete", ref, "--yes")
    assert result.code == 2
    assert "delete removes whole runs" in result.stderr and "pitstop prune run_002" in result.stderr
    assert runs() == ["run_001", "run_002"]


def test_a_damaged_run_can_be_deleted(pitstop: Cli, run: RunDirectory) -> None:
    for name in ("config.json", "metadata.json"):
        (run.path / name).write_text("{")
    (run.store.directory / "checkpoint-1" / "MANIFEST.json").write_text("x")
    assert pitstop("delete", "2", "--yes").code == 0
    assert runs() == ["run_001"]
    assert not (BASE / "by-name" / "a-run").is_symlink()


def test_an_interrupted_deletion_is_finished_by_deleting_again(pitstop: Cli, run: RunDirectory) -> None:
    run.path.rename(BASE / ".trash-run_002-aa")
    dry = pitstop("delete", "2", "--dry-run")
    assert (dry.code, "would be removed" in dry.stdout) == (0, True)
    result = pitstop("delete", "a-run", "--json")
    content = result.json()
    assert (result.code, content["deleted"], content["finished_earlier_deletion"]) == (0, True, True)
    assert content["freed_bytes"] > 10_000
    assert litter(BASE) == []
    result = pitstop("delete", "a-run", "--yes")
    assert (result.code, "run 'a-run' not found" in result.stderr) == (2, True)


def test_deleting_another_run_takes_leftovers_along(pitstop: Cli, run: RunDirectory) -> None:
    third = make_run(BASE, "third")
    third.path.rename(BASE / ".trash-run_003-aa")
    assert pitstop("delete", "2", "-y").code == 0
    assert litter(BASE) == []
    assert sorted(path.name for path in (BASE / "by-name").iterdir()) == [".lock", "kept"]


def test_a_disk_that_refuses_is_told_with_what_is_left(pitstop: Cli, run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "rename", lambda *arguments: failing(5)())
        result = pitstop("delete", "2", "--yes")
        assert (result.code, "all of it is still there" in result.stderr) == (6, True)
        assert names(run) == checkpoints(1, 2, 3, 4, 5)
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "unlink", lambda *arguments: failing(5)())
        result = pitstop("delete", "2", "--yes")
        assert (result.code, "`pitstop prune` removes the rest" in result.stderr) == (6, True)
    assert runs() == ["run_001"]
    assert pitstop("prune").code == 0
    assert litter(BASE) == []


@pytest.mark.usefixtures("run")
def test_an_absent_run_says_what_is_there(pitstop: Cli) -> None:
    result = pitstop("delete", "7", "--yes")
    assert (result.code, "there: run_001, run_002" in result.stderr) == (2, True)
    assert pitstop("delete").code == 2
