"""Checkpoints tell no directory of the machine that saved them, and a run goes on where model, data and runs lie elsewhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk.manifest import sealed, unsealed
from pitstop.checkpointing.store.portable_paths import portable_settings, portable_value
from pitstop.configs.paths import PATHS
from support.forked import kill_at_step, pitstop
from support.tiny_model import write_data, write_records
from support.training import arguments, assert_same_end, checkpoints, metadata, rows

pytestmark = pytest.mark.usefixtures("warm")

MODEL, DATA, RUNS = "models-of-alice", "data-of-alice", "runs-of-alice"


@dataclass(frozen=True)
class Machine:
    """A machine's directories: a model in one, data in one, runs in one."""

    home: Path

    @property
    def model(self) -> Path:
        return self.home / MODEL / "tiny"

    @property
    def data(self) -> Path:
        return self.home / DATA

    @property
    def runs(self) -> Path:
        return self.home / RUNS

    @property
    def run(self) -> Path:
        return self.runs / "run_001"

    def train(self, prepare: Callable[[], None] | None = None, **settings: Any) -> int:
        return pitstop(*arguments(self.model, self.data, self.runs, **settings), prepare=prepare).code

    def moved(self, *parts: str) -> Machine:
        """The same run where these parts lie in another directory: the old ones are gone."""
        new = Machine(self.home.with_name("elsewhere"))
        for part in parts:
            (new.home / part).parent.mkdir(exist_ok=True)
            (self.home / part).rename(new.home / part)
        return new


@pytest.fixture
def machine(tiny_model: Path, tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "home-of-alice")
    shutil.copytree(tiny_model, made.model)
    write_data(made.data, 12, 4)
    return made


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """The run as it ends where nothing interrupts it and nothing moves."""
    home = Machine(tmp_path_factory.mktemp("whole"))
    shutil.copytree(tiny_model, home.model)
    write_data(home.data, 12, 4)
    assert home.train() == 0
    return home.run


def test_no_file_of_a_checkpoint_or_a_saved_base_tells_a_directory(machine: Machine) -> None:
    assert machine.train() == 0
    resumed = pitstop("resume", 1, "--base-dir", machine.runs, "--epochs", 3)
    assert resumed.code == 0, resumed.output
    assert checkpoints(machine.run) == ["epoch_001", "epoch_002", "epoch_003"]
    searched = [*machine.run.glob("lora_weights/epoch_*/*"), *machine.runs.glob(".base_models/*/*")]
    assert len({path.name for path in searched}) > 10
    parts = {*machine.home.parts[1:], MODEL, DATA}  # those of pytest's directory too
    for path in searched:
        content = path.read_bytes()
        assert not [part for part in parts if len(part) > 4 and part.encode() in content], path
    state = json.loads((machine.run / "lora_weights/epoch_003/trainer_state.json").read_text())["settings"]
    assert (state["model"]["id"], state["data"]["train"], state["data"]["eval"]) == ("tiny", ["train.jsonl"], ["eval.jsonl"])
    adapter = json.loads((machine.run / "lora_weights/epoch_003/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "tiny"
    # The run itself keeps all of it, and nothing is told to have changed that has not.
    assert json.loads((machine.run / "config.json").read_text())["model"]["id"] == str(machine.model)
    assert metadata(machine.run)["resumes"][0]["changes"] == {"training.epochs": [2, 3]}
    assert [line for line in resumed.output.splitlines() if "changed:" in line] == ["changed: training.epochs: 2 → 3"]


@pytest.mark.parametrize("saved", [True, False], ids=["with a copy", "without a copy"])
def test_a_model_that_moved_is_named_and_the_run_ends_as_if_it_had_not(machine: Machine, whole: Path, saved: bool) -> None:
    assert machine.train(kill_at_step(8), no_save_base_model=None if saved else True) == -signal.SIGKILL
    model = machine.moved(MODEL).model
    if not saved:
        lost = pitstop("resume", 1, "--base-dir", machine.runs)
        assert lost.code == 3, lost.output
        assert f"No base model at {machine.model}" in lost.output and "--model-id PATH gives the new place" in lost.output
    there = pitstop("resume", 1, "--base-dir", machine.runs, "--model-id", model, prepare=kill_at_step(10))
    assert there.code == -signal.SIGKILL, there.output
    assert f"changed: model.id: {machine.model} → {model}" in there.output and "made again" not in there.output
    ended = pitstop("resume", 1, "--base-dir", machine.runs)  # the new place is on record
    assert ended.code == 0, ended.output
    assert not list(machine.runs.rglob(".damaged"))
    assert_same_end(machine.run, whole)
    longer = pitstop("resume", 1, "--base-dir", machine.runs, "--epochs", 3)
    assert longer.code == 0, longer.output


def test_a_model_that_is_gone_is_not_needed_where_the_run_has_its_own_copy(machine: Machine, whole: Path) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    machine.moved(MODEL)
    shutil.rmtree(machine.runs / ".base_models")
    there = pitstop("resume", 1, "--base-dir", machine.runs, prepare=kill_at_step(10))
    assert there.code == -signal.SIGKILL, there.output
    assert f"{machine.model} is not found from here: the run's own copy of it is used" in there.output
    ended = pitstop("resume", 1, "--base-dir", machine.runs)
    assert ended.code == 0 and "changed:" not in ended.output, ended.output
    assert_same_end(machine.run, whole)


@pytest.mark.parametrize("damaged", ["tokenizer.json", "model.safetensors"])
def test_a_copy_that_is_damaged_does_not_stand_in_for_the_model(machine: Machine, damaged: str) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    machine.moved(MODEL)
    shutil.rmtree(machine.runs / ".base_models")
    with (machine.run / "base_model" / damaged).open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"~")
    lost = pitstop("resume", 1, "--base-dir", machine.runs)
    assert lost.code == 3 and f"No base model at {machine.model}" in lost.output, lost.output


@pytest.mark.parametrize("saved", [True, False], ids=["with a copy", "without a copy"])
def test_another_model_in_its_place_is_refused_unless_allowed(machine: Machine, saved: bool) -> None:
    assert machine.train(kill_at_step(8), no_save_base_model=None if saved else True) == -signal.SIGKILL
    other = machine.home / "other"
    shutil.copytree(machine.model, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    refused = pitstop("resume", 1, "--base-dir", machine.runs, "--model-id", other)
    assert refused.code == 3, refused.output
    assert "is not the one that run_001 was trained on" in refused.output and "--allow-changed-base" in refused.output
    assert metadata(machine.run)["resumes"] == []
    allowed = pitstop("resume", 1, "--base-dir", machine.runs, "--model-id", other, "--allow-changed-base")
    assert allowed.code == 0, allowed.output
    again = pitstop("resume", 1, "--base-dir", machine.runs, "--epochs", 3)
    assert again.code == 0, again.output


def test_a_base_made_where_another_type_is_computed_in_is_known_by_its_files(machine: Machine) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    model = machine.moved(MODEL).model

    def other_precision() -> None:
        import torch

        from pitstop.trainers.machine import hardware
        from pitstop.trainers.machine.device import Precision

        hardware.choose_precision = lambda settings, device: Precision(torch.float16, "no")  # type: ignore[assignment]

    ended = pitstop("resume", 1, "--base-dir", machine.runs, "--model-id", model, prepare=other_precision)
    assert ended.code == 0, ended.output
    assert len(list((machine.runs / ".base_models").glob("*/BASE_MANIFEST.json"))) == 1


def test_data_that_moved_are_named_and_the_epoch_goes_on(machine: Machine, whole: Path) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    data = machine.moved(DATA).data
    lost = pitstop("resume", 1, "--base-dir", machine.runs)
    assert lost.code == 3, lost.output
    assert "--dataset PATH and --eval-dataset PATH give the new place" in lost.output
    places = ("--dataset", data / "train.jsonl", "--eval-dataset", data / "eval.jsonl")
    there = pitstop("resume", 1, "--base-dir", machine.runs, *places, prepare=kill_at_step(10))
    assert there.code == -signal.SIGKILL, there.output
    assert "has changed" not in there.output
    ended = pitstop("resume", 1, "--base-dir", machine.runs)
    assert ended.code == 0, ended.output
    assert_same_end(machine.run, whole)


def _pulled(machine: Machine) -> Machine:
    """The run as it comes to a machine that has none of the directories: no record of it holds a path either."""
    new = machine.moved(RUNS, MODEL, DATA)
    config, records = new.run / "config.json", new.run / "metadata.json"
    settings = json.loads(config.read_text())
    del settings["sources"]
    config.write_text(json.dumps(portable_settings(settings)))
    content = metadata(new.run)
    del content["status"]
    content["base_model"]["id"] = portable_value(content["base_model"]["id"])
    content["training_config"]["checkpoint"]["base_dir"] = RUNS
    records.write_text(json.dumps(content | {"model": "tiny"}))
    assert str(machine.home) not in config.read_text() + records.read_text()
    return new


def test_a_run_of_another_machine_goes_on_with_the_places_given_once(machine: Machine, whole: Path) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    new = _pulled(machine)
    lost = pitstop("resume", 1, "--base-dir", new.runs)
    assert lost.code == 3, lost.output
    assert "tiny is not found from here" in lost.output, "the Hub is not asked for a model of that name"
    assert "--dataset PATH" in lost.output
    places = ("--model-id", new.model, "--dataset", new.data / "train.jsonl", "--eval-dataset", new.data / "eval.jsonl")
    there = pitstop("resume", 1, "--base-dir", new.runs, *places, prepare=kill_at_step(10))
    assert there.code == -signal.SIGKILL, there.output
    ended = pitstop("resume", 1, "--base-dir", new.runs)
    assert ended.code == 0, ended.output
    assert_same_end(new.run, whole)


def test_giving_the_new_places_is_no_wish_to_train_on_after_an_early_stop(machine: Machine) -> None:
    def killed_after_the_last_save() -> None:
        import os

        from pitstop.trainers.training.trainer import Trainer

        Trainer.conclude = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign]

    stopping = {"epochs": 12, "mode": "max", "early_stopping_patience": 2}
    assert machine.train(killed_after_the_last_save, **stopping) == -signal.SIGKILL
    last = rows(machine.run)[-1]["step"]
    new = _pulled(machine)
    places = ("--model-id", new.model, "--dataset", new.data / "train.jsonl", "--eval-dataset", new.data / "eval.jsonl")
    ended = pitstop("resume", 1, "--base-dir", new.runs, *places)
    assert ended.code == 0, ended.output
    assert (metadata(new.run)["status"], rows(new.run)[-1]["step"]) == ("stopped", last)


def test_lost_metadata_leave_the_places_of_the_start(machine: Machine, whole: Path) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    (machine.run / "metadata.json").unlink()
    ended = pitstop("resume", 1, "--base-dir", machine.runs)
    assert ended.code == 0, ended.output
    assert "changed:" not in ended.output
    assert_same_end(machine.run, whole)


def test_a_lost_config_is_named(machine: Machine) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    (machine.run / "config.json").unlink()
    ended = pitstop("resume", 1, "--base-dir", machine.runs)
    assert ended.code == 4 and "config.json" in ended.output, ended.output


def test_data_of_the_same_name_elsewhere_are_those_that_a_resume_changed_to(machine: Machine) -> None:
    assert machine.train() == 0
    (machine.home / "more").mkdir()
    more = write_records(machine.home / "more/train.jsonl", 18)
    changed = pitstop("resume", 1, "--base-dir", machine.runs, "--epochs", 3, "--dataset", more, "--allow-changed-data")
    assert changed.code == 0, changed.output
    assert rows(machine.run)[-1]["step"] == 6 + 6 + 9
    longer = pitstop("resume", 1, "--base-dir", machine.runs, "--epochs", 4)
    assert longer.code == 0, longer.output
    assert rows(machine.run)[-1]["step"] == 6 + 6 + 9 + 9
    before = pitstop("resume", "1@epoch_001", "--base-dir", machine.runs)
    assert before.code == 0, before.output
    assert rows(machine.run)[-1]["step"] == 12, "a checkpoint from before the change goes on with what it was trained on"


def test_a_checkpoint_with_full_paths_goes_on_from_these(machine: Machine, whole: Path) -> None:
    assert machine.train(kill_at_step(8)) == -signal.SIGKILL
    full = json.loads((machine.run / "config.json").read_text())
    checkpoint = machine.run / "lora_weights/epoch_001"

    def as_before(name: str, change: Callable[[dict[str, Any]], None]) -> None:
        path, manifest = checkpoint / name, checkpoint / "MANIFEST.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        body = unsealed(manifest.read_bytes(), "there")
        body["files"][name] = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        manifest.write_bytes(sealed(body))

    def put_paths(content: dict[str, Any]) -> None:
        for place in PATHS:
            *groups, last = place.split(".")
            inner, outer = content["settings"], full
            for group in groups:
                inner, outer = inner[group], outer[group]
            inner[last] = outer[last]

    as_before("trainer_state.json", put_paths)
    as_before("adapter_config.json", lambda content: content.update(base_model_name_or_path=str(machine.model)))
    ended = pitstop("resume", 1, "--base-dir", machine.runs)
    assert ended.code == 0, ended.output
    assert "changed:" not in ended.output
    assert_same_end(machine.run, whole)


FIRST, SECOND = "1" * 40, "2" * 40


def _hub(models: Path, head: str, asked: Path, then: Callable[[], None] | None = None) -> Callable[[], None]:
    """A Hub on which ``owner/name`` is at the commit ``head``; what is asked for is written down."""

    def prepare() -> None:
        import huggingface_hub

        def download(model_id: str, *, revision: str | None, **options: Any) -> str:
            with asked.open("a") as file:
                file.write(f"{model_id}@{revision}\n")
            return str(models / (revision or head))

        huggingface_hub.snapshot_download = download  # type: ignore[assignment]
        if then is not None:
            then()

    return prepare


@pytest.fixture
def commits(machine: Machine) -> Path:
    """Two commits of a model on the Hub, which differ."""
    models = machine.home / "snapshots"
    for commit in (FIRST, SECOND):
        shutil.copytree(machine.model, models / commit)
    config = json.loads((machine.model / "config.json").read_text())
    (models / SECOND / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    return models


def test_a_base_is_fetched_at_the_commit_that_was_trained_on(machine: Machine, commits: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    settings = {"model_id": "owner/name", "no_save_base_model": True, "epochs": 3}
    assert machine.train(_hub(commits, FIRST, asked, kill_at_step(8)), **settings) == -signal.SIGKILL
    moved_on = pitstop("resume", 1, "--base-dir", machine.runs, prepare=_hub(commits, SECOND, asked, kill_at_step(10)))
    assert moved_on.code == -signal.SIGKILL, moved_on.output
    # Whoever allows another base gets the newest, which is the base of what is saved from there on.
    allowed = ("resume", 1, "--base-dir", machine.runs, "--allow-changed-base")
    ended = pitstop(*allowed, prepare=_hub(commits, SECOND, asked, kill_at_step(14)))
    assert ended.code == -signal.SIGKILL, ended.output
    assert "The base model has changed" in ended.output
    ended = pitstop("resume", 1, "--base-dir", machine.runs, prepare=_hub(commits, FIRST, asked))
    assert ended.code == 0, ended.output
    revisions = [line.partition("@")[2] for line in asked.read_text().splitlines()]
    assert revisions == ["None", FIRST, "None", SECOND]
    older = pitstop("resume", "1@epoch_001", "--base-dir", machine.runs, prepare=_hub(commits, SECOND, asked))
    assert older.code == 0, older.output
    assert asked.read_text().splitlines()[-1] == f"owner/name@{FIRST}"


def test_a_commit_on_record_that_is_none_is_not_asked_for(machine: Machine, commits: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    assert machine.train(_hub(commits, FIRST, asked, kill_at_step(8)), model_id="owner/name") == -signal.SIGKILL
    content = metadata(machine.run)
    content["base_model"]["revision"] = "../../elsewhere"
    (machine.run / "metadata.json").write_text(json.dumps(content))
    ended = pitstop("resume", 1, "--base-dir", machine.runs, prepare=_hub(commits, FIRST, asked))
    assert ended.code == 0, ended.output
    assert asked.read_text().splitlines() == ["owner/name@None"] * 2
