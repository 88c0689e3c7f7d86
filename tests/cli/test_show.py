from __future__ import annotations

import json
from typing import Any

import pytest

from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.cli import Cli
from support.hub_records import pushed
from support.stores import ForgetfulStorage, save

CONFIG: dict[str, Any] = {
    "model": {"id": "some/model"},
    "data": {"train": ["a.jsonl"]},
    "training": {
        "task": "sft",
        "method": "qlora",
        "learning_rate": 1e-4,
        "packing": True,
        "checkpoint": {"monitor": "val_loss", "mode": "min"},
    },
    "sources": {"model.id": ".env line 3 (MODEL_ID)", "training.learning_rate": "--learning-rate"},
}


@pytest.fixture
def run() -> RunDirectory:
    run = create_run("checkpoints", name="a-run", config=CONFIG, metadata={}, storage=ForgetfulStorage())
    for step, loss in ((10, 0.5), (20, 0.25), (30, 0.75)):
        save(run.store, step, metrics={"val_loss": loss, "accuracy": 0.9})
    run.store.repair_pointers()
    run.sync_checkpoints({"status": "completed", "progress": {"step": 30, "total_steps": 40, "epoch": 3, "total_epochs": 4}})
    return run


@pytest.mark.usefixtures("run")
def test_a_run_is_shown_with_settings_sources_and_checkpoints(pitstop: Cli) -> None:
    out = pitstop("show", "1").stdout
    assert out.startswith("run_001  a-run  completed\n")
    assert "step 30 of 40, epoch 3 of 4" in out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["model.id"] == ["model.id", "some/model", ".env", "line", "3", "(MODEL_ID)"]
    assert lines["training.learning_rate"][-2:] == ["0.0001", "--learning-rate"]
    assert lines["checkpoint-10"][-1] == "complete"
    assert lines["checkpoint-20"][-2:] == ["complete", "best"]
    assert lines["checkpoint-30"][-2:] == ["complete", "last"]
    assert lines["checkpoint-20"][3:5] == ["val_loss=0.25", "accuracy=0.9"]


@pytest.mark.usefixtures("run")
def test_what_matters_comes_first_and_settings_at_their_defaults_only_with_all(pitstop: Cli) -> None:
    out = pitstop("show", "1").stdout
    progress, best, disk, checkpoints, settings = (
        out.index(text)
        for text in (
            "\n  progress ",
            "\n  best        checkpoint-20  val_loss 0.25\n",
            "\n  disk ",
            "\nCheckpoints\n",
            "\nSettings",
        )
    )
    assert progress < best < disk < checkpoints < settings
    assert "training.task" not in out and "more are at their defaults; pitstop show run_001 --all lists every setting\n" in out
    complete = pitstop("show", "1", "--all").stdout
    assert "training.task" in complete and "at their defaults" not in complete


def test_what_training_took_is_shown_where_it_is_on_record(pitstop: Cli, run: RunDirectory) -> None:
    for text in ("\n  time ", "\n  peak memory "):
        assert text not in pitstop("show", "1").stdout, "the run is of a version that did not record it"
    assert json.loads(pitstop("show", "1", "--json").stdout)["usage"] is None
    usage = {"training_s": 7621.4, "peak_memory_bytes": 3 << 29}
    run.update_metadata({"usage": usage})
    out = pitstop("show", "1").stdout
    assert "\n  peak memory 1.5 GiB\n  time        2 h 07 min\n" in out
    assert out.index("\n  best ") < out.index("\n  peak memory ") < out.index("\n  disk ")
    assert json.loads(pitstop("show", "1", "--json").stdout)["usage"] == usage


@pytest.mark.parametrize(
    "usage", ["float('inf')", {"training_s": float("nan")}, {"peak_memory_bytes": 10**400}, {"training_s": -1}]
)
def test_what_no_training_took_is_named_and_not_shown(pitstop: Cli, run: RunDirectory, usage: Any) -> None:
    path = run.path / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "usage": usage}))
    result = pitstop("show", "1")
    assert result.code == 0 and "\n  time " not in result.stdout
    assert "metadata.json: usage: not what Pitstop writes, so not shown" in result.stderr


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("ref", ["1", "run_001", "a-run", "checkpoints/run_001", "checkpoints/by-name/a-run"])
def test_a_run_is_found_by_any_of_its_names(pitstop: Cli, ref: str) -> None:
    assert json.loads(pitstop("show", ref, "--json").stdout)["name"] == "a-run"


def test_json_holds_everything(pitstop: Cli, run: RunDirectory) -> None:
    run.record_resume(run.store.resolve("best"), {"training.epochs": (3, 4)})
    run.store.supersede(20)
    run.sync_checkpoints()
    content = json.loads(pitstop("show", "1", "--json").stdout)
    assert content["settings"]["training"]["learning_rate"] == 1e-4
    assert content["sources"]["model.id"] == ".env line 3 (MODEL_ID)"
    assert "sources" not in content["settings"]
    assert [(entry["name"], entry["state"], entry["pins"]) for entry in content["checkpoints"]] == [
        ("checkpoint-10", "complete", []),
        ("checkpoint-20", "complete", ["best", "last", "resumed from"]),
    ]
    assert [(entry["name"], entry["where"]) for entry in content["set_aside"]] == [("checkpoint-30", ".superseded")]
    assert content["resumes"][0]["changes"] == {"training.epochs": [3, 4]}
    disk = content["disk"]
    assert disk["set_aside_bytes"] > 3000
    assert disk["own_bytes"] > disk["checkpoints_bytes"] + disk["set_aside_bytes"] + disk["logs_bytes"]
    text = pitstop("show", "1").stdout
    assert "from checkpoint-20 (step 20): training.epochs: 3 → 4" in text
    assert ".superseded/checkpoint-30" in text


def test_damage_is_shown_and_only_hashing_finds_a_changed_byte(pitstop: Cli, run: RunDirectory) -> None:
    (run.store.directory / "checkpoint-10" / "state.json").unlink()
    path = run.store.directory / "checkpoint-30" / "state.json"
    path.write_bytes(path.read_bytes()[::-1])
    quick = {entry["name"]: entry for entry in json.loads(pitstop("show", "1", "--json").stdout)["checkpoints"]}
    assert [quick[f"checkpoint-{step}"]["state"] for step in (10, 20, 30)] == ["damaged", "complete", "complete"]
    deep = {entry["name"]: entry for entry in json.loads(pitstop("show", "1", "--verify", "--json").stdout)["checkpoints"]}
    assert [deep[f"checkpoint-{step}"]["state"] for step in (10, 20, 30)] == ["damaged", "verified", "damaged"]
    assert "state.json changed" in deep["checkpoint-30"]["problem"]
    result = pitstop("show", "1", "--verify")
    assert result.code == 0
    assert "state.json is missing" in result.stderr


@pytest.mark.usefixtures("run")
def test_one_checkpoint_is_shown_with_its_files(pitstop: Cli) -> None:
    out = pitstop("show", "1@best").stdout
    assert "checkpoint-20 in " in out
    assert "adapter_model.safetensors" in out
    assert "version torch: 2.13.0" in out
    assert "fingerprint base: b" in out
    contents = json.loads(pitstop("show", "1@checkpoint-10", "--json").stdout)["checkpoint"]
    assert contents["files"]["state.json"]["size_bytes"] == 4
    result = pitstop("show", "1@epoch_9")
    assert result.code == 4
    assert "checkpoint-10, checkpoint-20, checkpoint-30" in result.stderr


def test_a_shared_base_is_counted_once(pitstop: Cli, run: RunDirectory) -> None:
    other = create_run("checkpoints", name="other", config=CONFIG, metadata={}, storage=ForgetfulStorage())
    models = BaseModels("checkpoints", ForgetfulStorage())
    models.save_once("digest-1234", lambda directory: (directory / "model.safetensors").write_bytes(bytes(2048)) and None)
    for each in (run, other):
        models.link_into(each.path, "digest-1234")
    disk = json.loads(pitstop("show", "2", "--json").stdout)["disk"]
    assert (disk["base_model"]["shared_by_runs"], disk["base_model"]["linked"]) == (2, True)
    assert disk["base_model"]["saved_bytes"] == disk["base_model"]["size_bytes"] > 2048
    assert disk["own_bytes"] < 2048
    assert "one copy for 2 runs" in pitstop("show", "2").stdout


def test_a_run_in_use_says_by_whom(pitstop: Cli, run: RunDirectory) -> None:
    with run.lock({"command": "train"}):
        assert "in use by   process " in pitstop("show", "1").stdout
        assert json.loads(pitstop("show", "1", "--json").stdout)["in_use_by"]["command"] == "train"
    assert "in use by" not in pitstop("show", "1").stdout


def test_the_hub_line_says_what_is_there_and_what_is_behind(pitstop: Cli, run: RunDirectory) -> None:
    assert "\n  hub " not in pitstop("show", "1").stdout
    assert pitstop("show", "1", "--json").json()["hub"] is None
    pushed(run, "checkpoint-10")
    assert "\n  hub         user/a-run, 2 behind: checkpoint-20, checkpoint-30\n" in pitstop("show", "1").stdout
    hub = pitstop("show", "1", "--json").json()["hub"]
    waiting = ["checkpoint-20", "checkpoint-30"]
    assert hub == {"repo": "user/a-run", "state": "behind", "behind": 2, "problem": None, "waiting": waiting}
    pushed(run, "checkpoint-10", "checkpoint-30", problem="no room on the account", repo=None)
    out = pitstop("show", "1").stdout
    assert "\n  hub         repository not made yet, failed: no room on the account, 1 behind: checkpoint-20\n" in out
    pushed(run, "checkpoint-10", "checkpoint-20", "checkpoint-30")
    assert "\n  hub         user/a-run, in step\n" in pitstop("show", "1").stdout
    (run.path / "hub" / "state.json").write_text("{}")
    assert "failed: hub/state.json is damaged\n" in pitstop("show", "1").stdout


def test_lost_files_are_said_and_the_rest_is_shown(pitstop: Cli, run: RunDirectory) -> None:
    (run.path / "metadata.json").write_text("{")
    (run.path / "config.json").unlink()
    result = pitstop("show", "1")
    assert result.code == 0
    assert "metadata.json: damaged" in result.stderr
    assert "config.json: No such file" in result.stderr
    assert "run_001  run_001  incomplete" in result.stdout
    assert "checkpoint-20" in result.stdout


def test_an_absent_run_says_what_is_there(pitstop: Cli, run: RunDirectory) -> None:
    result = pitstop("show", "99")
    assert result.code == 2
    assert "run '99' not found" in result.stderr
    assert "there: run_001" in result.stderr
    assert result.stdout == ""
