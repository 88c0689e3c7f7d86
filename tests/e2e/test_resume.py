"""Which checkpoint a resume takes, what it may change and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.forked import kill_at_step, pitstop
from support.tiny_model import write_data
from support.training import arguments, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """A finished run of two epochs with its data, to be copied."""
    home = tmp_path_factory.mktemp("trained")
    write_data(home / "data", 12, 4)
    assert pitstop(*arguments(tiny_model, home / "data", home / "runs")).code == 0
    return home


def test_more_epochs_and_another_rate_take_effect_and_are_recorded(runs: Path) -> None:
    name = metadata(runs / "run_001")["name"]
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3, "--learning-rate", 0.001)
    assert ended.code == 0, ended.output
    assert metadata(runs / "run_001")["name"] == name, "a resumed run keeps its name"
    assert "changed: training.epochs: 2 → 3" in ended.output
    assert "changed: training.learning_rate: 0.01 → 0.001" in ended.output
    run = runs / "run_001"
    assert checkpoints(run)[-1] == "epoch_003"
    assert [row["step"] for row in rows(run)] == list(range(1, 19))
    assert max(row["learning_rate"] for row in rows(run)[12:]) <= 0.001
    changes = metadata(run)["resumes"][-1]["changes"]
    assert changes == {"training.epochs": [2, 3], "training.learning_rate": [0.01, 0.001]}
    assert json.loads((run / "config.json").read_text())["training"]["epochs"] == 2, "config.json is never rewritten"


@pytest.mark.parametrize("step", [13, 19], ids=["before_a_save", "after_a_save"])
def test_what_a_resume_changed_stays_changed_in_the_next_ones(runs: Path, step: int) -> None:
    assert pitstop("resume", 1, "--base-dir", runs, "--epochs", 4, prepare=kill_at_step(step)).code == -signal.SIGKILL
    assert pitstop("resume", 1, "--base-dir", runs, prepare=kill_at_step(step)).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", runs)
    assert ended.code == 0, ended.output
    assert checkpoints(runs / "run_001")[-1] == "epoch_004"


def test_finished_run_is_refused_with_the_way_on(runs: Path) -> None:
    ended = pitstop("resume", 1, "--base-dir", runs)
    assert ended.code == 2
    assert "run_001 is finished" in ended.output
    assert "--epochs" in ended.output


@pytest.mark.parametrize("flags", [("--epochs", 1), ("--epochs", 2), ("--max-steps", 5)], ids=str)
def test_a_finished_run_that_is_asked_for_less_tells_what_it_has_done(runs: Path, flags: tuple[str, int]) -> None:
    ended = pitstop("resume", 1, "--base-dir", runs, *flags)
    assert ended.code == 2
    assert "error: run_001 is finished: 2 epochs, step 12." in ended.output
    assert "pitstop resume 1 --epochs 7" in ended.output


def test_a_run_that_ended_by_its_steps_is_told_how_to_make_more_of_them(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    words = arguments(tiny_model, data, tmp_path, method="lora", max_steps=2)
    assert pitstop(*words).code == 0
    ended = pitstop("resume", 1, "--base-dir", tmp_path)
    assert ended.code == 2 and "step 2." in ended.output
    assert "pitstop resume 1 --max-steps 4" in ended.output
    assert pitstop("resume", 1, "--base-dir", tmp_path, "--max-steps", 4).code == 0


@pytest.mark.parametrize("reference", ["1@epoch_001", "run_001@epoch_001", "path"])
def test_older_checkpoint_starts_another_line_and_sets_the_later_ones_aside(runs: Path, reference: str) -> None:
    run = runs / "run_001"
    ended = pitstop("resume", run / "lora_weights/epoch_001" if reference == "path" else reference, "--base-dir", runs)
    assert ended.code == 0, ended.output
    assert "Later checkpoints were set aside" in ended.output
    assert (run / "lora_weights/.superseded").is_dir()
    assert checkpoints(run) == ["epoch_001", "epoch_002"]
    assert [row["step"] for row in rows(run)] == list(range(1, 13))


def test_checkpoint_option_takes_best(runs: Path) -> None:
    best = metadata(runs / "run_001")["best_checkpoint"]["name"]
    ended = pitstop("resume", 1, "--base-dir", runs, "--checkpoint", "best", "--epochs", 3)
    assert ended.code == 0, ended.output
    assert f"from {best}" in ended.output


def test_unknown_checkpoint_says_what_is_there(runs: Path) -> None:
    ended = pitstop("resume", 1, "--base-dir", runs, "--checkpoint", "epoch_007")
    assert ended.code == 4
    assert "epoch_007" in ended.output
    assert "epoch_001, epoch_002" in ended.output


def test_train_resume_is_the_same_as_resume(runs: Path) -> None:
    ended = pitstop("train", "--resume", "--run-number", 1, "--base-dir", runs, "--epochs", 3)
    assert ended.code == 0, ended.output
    assert checkpoints(runs / "run_001")[-1] == "epoch_003"


def test_yaml_key_resume_from_run_resumes(runs: Path, tmp_path: Path) -> None:
    config = tmp_path / "go_on.yaml"
    config.write_text(f"training:\n  checkpoint:\n    base_dir: {runs}\n    resume_from_run: 1\n")
    ended = pitstop("train", "--config", config, "--epochs", 3)
    assert ended.code == 0, ended.output
    assert "Resumed run 1" in ended.output


def test_changed_data_is_refused_and_allowed_on_request(runs: Path, trained: Path) -> None:
    train = trained / "data/train.jsonl"
    before = train.read_text()
    try:
        train.write_text(before.replace("aspirin", "aspirine"))
        refused = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
        assert refused.code == 3
        assert "has changed" in refused.output
        assert "--allow-changed-data" in refused.output
        allowed = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3, "--allow-changed-data")
        assert allowed.code == 0, allowed.output
    finally:
        train.write_text(before)


def test_damaged_base_copy_is_made_again_from_its_source(runs: Path) -> None:
    for copy in [*runs.glob(".base_models/*/model.safetensors"), runs / "run_001/base_model/model.safetensors"]:
        content = bytearray(copy.read_bytes())
        content[-1] ^= 1
        copy.unlink()
        copy.write_bytes(content)
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
    assert ended.code == 0, ended.output
    assert "made again" in ended.output


def test_changed_base_is_refused_and_allowed_on_request(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    model, runs = tmp_path / "model", tmp_path / "runs"
    shutil.copytree(tiny_model, model)
    settings = arguments(model, data, runs, method="lora", no_save_base_model=True)
    assert pitstop(*settings, prepare=kill_at_step(8)).code == -signal.SIGKILL
    assert not (runs / ".base_models").exists()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    refused = pitstop("resume", 1, "--base-dir", runs)
    assert refused.code == 3, refused.output
    assert "--allow-changed-base" in refused.output
    assert pitstop("resume", 1, "--base-dir", runs, "--allow-changed-base").code == 0


@pytest.mark.parametrize("flag", [("--lora-rank", "8"), ("--method", "lora"), ("--optimizer", "adamw_8bit")])
def test_what_would_make_another_model_is_refused(runs: Path, flag: tuple[str, str]) -> None:
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3, *flag)
    assert ended.code == 2
    assert flag[0] in ended.output


def test_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(runs: Path) -> None:
    weights = runs / "run_001/lora_weights/epoch_002/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(content)
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
    assert ended.code == 0, ended.output
    assert "epoch_002 is damaged and was set aside" in ended.output
    assert "from epoch_001" in ended.output
    assert any((runs / "run_001/lora_weights/.damaged").iterdir())


def test_run_in_use_is_refused_and_names_the_process(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    from support.forked import Child

    runs = tmp_path / "runs"
    child = Child(*arguments(tiny_model, data, runs, epochs=3000, save_strategy="steps", save_steps=5))
    try:
        child.wait_for("saved checkpoint-5")
        ended = pitstop("resume", 1, "--base-dir", runs)
        assert ended.code == 2, ended.output
        assert str(child.pid) in ended.output
    finally:
        child.send(signal.SIGTERM)
        assert child.wait().code == 143


def test_lost_metadata_is_rebuilt(runs: Path) -> None:
    (runs / "run_001/metadata.json").write_text("{")
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
    assert ended.code == 0, ended.output
    assert metadata(runs / "run_001")["status"] == "completed"


def test_run_whose_checkpoints_are_all_damaged_is_refused_and_nothing_is_deleted(runs: Path) -> None:
    weights = runs / "run_001/lora_weights"
    for file in weights.glob("epoch_*/adapter_model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
    assert ended.code == 4, ended.output
    assert "epoch_001" in ended.output
    assert "epoch_002" in ended.output
    assert {"epoch_001", "epoch_002"} <= {path.name for path in (weights / ".damaged").iterdir()}


def test_run_killed_before_its_first_checkpoint_is_refused_with_the_way_on(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    assert pitstop(*arguments(tiny_model, data, tmp_path / "runs"), prepare=kill_at_step(2)).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", tmp_path / "runs")
    assert ended.code == 4, ended.output
    assert "no checkpoint yet" in ended.output
    assert "pitstop train" in ended.output


def _content(run: Path) -> dict[Path, bytes]:
    """All files of a run but the word of who last held its lock."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


def _damage(checkpoint: Path) -> None:
    weights = checkpoint / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


@pytest.mark.parametrize("name", ["epoch_001", "epoch_002"])
def test_damaged_checkpoint_that_was_asked_for_is_refused_and_the_whole_ones_named(runs: Path, name: str) -> None:
    weights = runs / "run_001/lora_weights"
    _damage(weights / name)
    other = "epoch_002" if name == "epoch_001" else "epoch_001"
    ended = pitstop("resume", 1, "--base-dir", runs, "--checkpoint", name, "--epochs", 3)
    assert ended.code == 4, ended.output
    assert f"checkpoint '{name}' is damaged and was set aside" in ended.output
    assert "adapter_model.safetensors changed" in ended.output
    assert f"verified and whole: {other};" in ended.output
    assert "--fallback new" in ended.output
    assert (weights / ".damaged" / name).is_dir() and (weights / other).is_dir()
    assert len(metadata(runs / "run_001")["resumes"]) == 0


def test_fallback_new_starts_a_new_run_and_leaves_the_old_one_alone(runs: Path) -> None:
    weights = runs / "run_001/lora_weights"
    for name in ("epoch_001", "epoch_002"):
        _damage(weights / name)
    refused = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
    assert refused.code == 4, refused.output
    assert "--fallback new" in refused.output
    before = _content(runs / "run_001")
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 1, "--fallback", "new")
    assert ended.code == 0, ended.output
    assert "Starting a new run with the same settings instead" in ended.output
    assert "Run 2:" in ended.output
    assert checkpoints(runs / "run_002") == ["epoch_001"]
    new, old = metadata(runs / "run_002"), metadata(runs / "run_001")
    assert new["instead_of"] == "1" and new["name"] != old["name"]
    config = json.loads((runs / "run_002/config.json").read_text())
    assert (config["training"]["epochs"], config["lora"]["rank"]) == (1, 4)
    assert config["sources"]["lora.rank"] == "run_001/config.json"
    after = _content(runs / "run_001")
    assert after == before, "nothing of the old run changed"


def test_fallback_new_is_not_taken_where_a_checkpoint_can_be_used(runs: Path) -> None:
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3, "--fallback", "new")
    assert ended.code == 0, ended.output
    assert "Resumed run 1" in ended.output and not (runs / "run_002").exists()
    assert pitstop("resume", 1, "--base-dir", runs, "--fallback", "old").code == 2


def _reseal(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change trainer_state.json and write a manifest that fits, as a run on another machine would have."""
    from pitstop.checkpointing.disk.manifest import sealed, unsealed

    path, manifest = checkpoint / "trainer_state.json", checkpoint / "MANIFEST.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    body = unsealed(manifest.read_bytes(), "there")
    body["files"][path.name] = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest.write_bytes(sealed(body))


def test_another_machine_is_said_in_one_line_before_training_and_recorded(runs: Path) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["environment"]["versions"]["torch"] = "2.10.0"
        content["environment"]["threads"] = 64

    _reseal(runs / "run_001/lora_weights/epoch_002", elsewhere)
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
    assert ended.code == 0, ended.output
    lines = [line for line in ended.output.splitlines() if "not bit for bit" in line]
    assert len(lines) == 1 and "torch 2.10.0 → " in lines[0] and "threads 64 → 1" in lines[0]
    assert ended.output.index("not bit for bit") < ended.output.index("step 13/")
    changes = metadata(runs / "run_001")["resumes"][-1]["environment_changes"]
    assert changes["threads"] == [64, 1] and changes["torch"][0] == "2.10.0"


def test_the_same_machine_is_not_mentioned(runs: Path) -> None:
    ended = pitstop("resume", 1, "--base-dir", runs, "--epochs", 3)
    assert "bit for bit" not in ended.output
    assert "environment_changes" not in metadata(runs / "run_001")["resumes"][-1]
