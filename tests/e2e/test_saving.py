"""Saves beside a real training: it goes on meanwhile, ends in the same place, and waits at the end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.forked import Child, kill_at_step, pitstop
from support.training import arguments, assert_same_end, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

NO_EVALUATION = {"save_strategy": "steps", "save_steps": 4, "eval_dataset": None}
EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "keep_last_n": None}


def _slow_disk(ready: Path) -> Callable[[], None]:
    """No manifest reaches the disk before the file ``ready`` is there, and each takes a fifth of a second from then on."""

    def prepare() -> None:
        from pitstop.checkpointing.disk.storage import LocalStorage

        real = LocalStorage.write_file

        def write_file(self: LocalStorage, path: Path, content: object) -> object:
            while path.name == "MANIFEST.json" and not ready.exists():
                time.sleep(0.01)
            if path.name == "MANIFEST.json":
                time.sleep(0.2)
            return real(self, path, content)  # type: ignore[arg-type]

        LocalStorage.write_file = write_file  # type: ignore[method-assign,assignment]

    return prepare


def test_saving_beside_the_training_or_in_it_ends_in_the_same_place(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    beside, inside = tmp_path / "beside", tmp_path / "inside"
    assert pitstop(*arguments(tiny_model, data, beside, **EVERY_STEP)).code == 0
    assert pitstop(*arguments(tiny_model, data, inside, **EVERY_STEP, sync_save=True)).code == 0
    assert_same_end(beside / "run_001", inside / "run_001")
    assert checkpoints(beside / "run_001") == checkpoints(inside / "run_001")
    for name in checkpoints(beside / "run_001"):
        for file in ("adapter_model.safetensors", "optimizer.safetensors", "rng_state_0.json"):
            paths = [base / "run_001/lora_weights" / name / file for base in (beside, inside)]
            assert paths[0].read_bytes() == paths[1].read_bytes(), f"{name}/{file}"


def test_training_does_not_wait_for_a_slow_disk_but_its_end_does(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = Child(*arguments(tiny_model, data, tmp_path, **NO_EVALUATION), prepare=_slow_disk(ready))
    run = tmp_path / "run_001"
    child.wait_for("step 7/")
    assert checkpoints(run) == [], "three steps were trained while the save of step 4 is under way"
    ready.touch()
    assert child.wait().code == 0
    assert checkpoints(run) == ["checkpoint-12", "checkpoint-4", "checkpoint-8"]


def test_sigterm_waits_for_the_save_under_way_and_for_its_own(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = Child(
        *arguments(tiny_model, data, tmp_path, save_strategy="steps", save_steps=4, epochs=300), prepare=_slow_disk(ready)
    )
    child.wait_for("step 6/")
    child.send(signal.SIGTERM)
    child.wait_for("SIGTERM: saving a checkpoint")
    ready.touch()
    ended = child.wait()
    assert ended.code == 143, ended.output
    steps = sorted(int(name.split("-")[1]) for name in checkpoints(tmp_path / "run_001"))
    assert steps[0] == 4 and len(steps) >= 2
    assert metadata(tmp_path / "run_001")["status"] == "interrupted"


def test_kill_during_a_save_costs_that_save_and_the_resumed_run_ends_the_same(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert pitstop(*arguments(tiny_model, data, whole, **NO_EVALUATION)).code == 0

    def prepare() -> None:
        _slow_disk(tmp_path / "never")()
        kill_at_step(7, saved=False)()

    assert pitstop(*arguments(tiny_model, data, broken, **NO_EVALUATION), prepare=prepare).code == -signal.SIGKILL
    run = broken / "run_001"
    assert checkpoints(run) == []
    assert [path.name for path in (run / "lora_weights").iterdir() if path.name.startswith(".tmp-checkpoint-4")]
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 4 and "no checkpoint yet" in ended.output
    ended = pitstop("resume", 1, "--base-dir", broken, "--fallback", "new")
    assert ended.code == 0, ended.output
    assert_same_end(whole / "run_001", broken / "run_002")


def test_the_summary_and_the_last_lines_say_what_saving_cost(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **NO_EVALUATION), "--json")
    assert ended.code == 0, ended.output
    summary = json.loads(ended.output[ended.output.index("\n{\n") :])
    assert [save["step"] for save in summary["saves"]] == [4, 8, 12]
    assert all(save["written_s"] > 0 for save in summary["saves"])
    assert "Training waited" in ended.output and "for 3 saves" in ended.output


def test_a_filesystem_without_links_trains_resumes_and_lists(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    def no_links() -> None:
        def refuse(*arguments: object, **named: object) -> None:
            raise OSError(95, "Operation not supported")

        os.symlink = os.link = refuse  # type: ignore[assignment]

    whole, plain = tmp_path / "whole", tmp_path / "plain"
    assert pitstop(*arguments(tiny_model, data, whole)).code == 0

    def prepare() -> None:
        no_links()
        kill_at_step(8)()

    assert pitstop(*arguments(tiny_model, data, plain, sync_save=True), prepare=prepare).code == -signal.SIGKILL
    run = plain / "run_001"
    assert not [path for path in plain.rglob("*") if path.is_symlink()]
    assert (run / "base_model.json").is_file() and not (run / "base_model").exists()
    assert (run / "lora_weights/last").read_text() == "epoch_001\n"
    name = metadata(run)["name"]
    ended = pitstop("resume", name, "--base-dir", plain, prepare=no_links)
    assert ended.code == 0, ended.output
    assert (run / "lora_weights/last").read_text() == "epoch_002\n"
    assert name in pitstop("list-runs", "--base-dir", plain, "--json", prepare=no_links).output
    assert pitstop("show", f"{name}@best", "--base-dir", plain, prepare=no_links).code == 0
    assert rows(run) == rows(whole / "run_001")


def test_of_two_resumes_at_once_one_goes_on_and_the_other_names_it(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert pitstop(*arguments(tiny_model, data, runs, epochs=200), prepare=kill_at_step(14)).code == -signal.SIGKILL
    both = [Child("resume", 1, "--base-dir", runs) for _ in range(2)]
    deadline = time.monotonic() + 60
    while not any("is in use by process" in child.output() for child in both):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    loser = next(child for child in both if "is in use by process" in child.output())
    winner = next(child for child in both if child is not loser)
    assert f"process {winner.pid}" in loser.output()
    assert loser.wait().code == 2
    winner.wait_for("Resumed run 1")
    winner.send(signal.SIGTERM)
    assert winner.wait().code == 143
    assert len(metadata(runs / "run_001")["resumes"]) == 1


def test_reading_commands_see_whole_states_while_training_saves_at_every_step(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "epochs": 100, "keep_last_n": 2}
    child = Child(*arguments(tiny_model, data, tmp_path, **settings))
    child.wait_for("saved checkpoint-2")
    try:
        for _ in range(8):
            listed = pitstop("list-runs", "--base-dir", tmp_path, "--json")
            assert listed.code == 0, listed.output
            assert json.loads(listed.output)[0]["status"] == "running"
            shown = pitstop("show", 1, "--base-dir", tmp_path, "--json")
            assert shown.code == 0, shown.output
            content = json.loads(shown.output)
            assert content["problems"] == []
            assert {checkpoint["state"] for checkpoint in content["checkpoints"]} == {"complete"}
    finally:
        child.send(signal.SIGTERM)
    assert child.wait().code == 143
