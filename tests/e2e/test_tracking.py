"""A training that is killed and resumed is one run in each tracker; no tracker changes, slows, silences or ends a training."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.forked import Ended, pitstop
from support.mlflow_server import mlflow_server
from support.tiny_model import write_data
from support.training import arguments, assert_same_end, metadata, rows
from support.wandb_files import OfflineRun, offline_runs

pytestmark = pytest.mark.usefixtures("warm")

ALL = "tensorboard,wandb,mlflow"
SETTINGS = {"save_strategy": "steps", "save_steps": 2, "epochs": 1}
KILLED_AT = 4  # the row of step 3 has been sent then, and the resume goes on from step 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("flask")
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as address, pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", address)
        environment.setenv("WANDB_MODE", "offline")
        environment.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # noqa: F401 - forked children have them at once
        import wandb  # noqa: F401

        yield address


def kill_when_all_is_sent(step: int) -> Callable[[], None]:
    """The child kills itself at the end of ``step``, before that is logged, and when the trackers have what was."""

    def prepare() -> None:
        from pitstop.trainers.loop.loop import Loop
        from pitstop.trainers.tracking.channel import Channel

        channels: list[Channel] = []
        opening, stepping = Channel.open, Loop.step

        def open_(self: Channel, timeout_s: float) -> None:
            opening(self, timeout_s)
            channels.append(self)

        def step_(self: Loop) -> None:
            stepping(self)
            if self.progress.step == step:
                deadline = time.monotonic() + 30
                while any(channel._waiting for channel in channels) and time.monotonic() < deadline:
                    time.sleep(0.02)
                self.saves.settle(final=False)  # type: ignore[attr-defined]
                time.sleep(1.5)  # what was sent to W&B is in its file within a second
                os.kill(os.getpid(), signal.SIGKILL)

        Channel.open, Loop.step = open_, step_  # type: ignore[method-assign]

    return prepare


@dataclass(frozen=True)
class Tracked:
    """A run without trackers, and the same run with all, killed and resumed."""

    plain: Path
    run: Path
    resumed: Ended
    address: str


@pytest.fixture(scope="module")
def tracked(tiny_model: Path, server: str, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    home = tmp_path_factory.mktemp("tracked")
    data = write_data(home / "data", 12, 4)
    ended = pitstop(*arguments(tiny_model, data, home / "plain", **SETTINGS, report_to="none"))
    assert ended.code == 0, ended.output
    words = arguments(tiny_model, data, home / "runs", **SETTINGS, report_to=ALL, tracking_project="a-project")
    ended = pitstop(*words, prepare=kill_when_all_is_sent(KILLED_AT))
    assert ended.code == -signal.SIGKILL, ended.output
    resumed = pitstop("resume", 1, "--base-dir", home / "runs")
    assert resumed.code == 0, resumed.output
    return Tracked(home / "plain" / "run_001", home / "runs" / "run_001", resumed, server)


def test_tracked_killed_and_resumed_the_training_is_bit_for_bit_the_one_without_trackers(tracked: Tracked) -> None:
    assert_same_end(tracked.plain, tracked.run)


def test_the_trackers_say_nothing(tracked: Tracked) -> None:
    words = ("wandb", "mlflow", "tensorboard", "view run", "warning")
    assert [line for line in tracked.resumed.output.lower().splitlines() if any(word in line for word in words)] == []
    assert not (tracked.plain / "logs" / "tensorboard").exists()


def _scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "logs" / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def _logged(run: Path, key: str) -> list[tuple[int, float]]:
    return [(row["step"], pytest.approx(row[key], rel=1e-6)) for row in rows(run) if key in row]


def test_tensorboard_has_each_step_once_after_a_kill_and_a_resume(tracked: Tracked) -> None:
    files = list((tracked.run / "logs" / "tensorboard").glob("events.out.tfevents.*"))
    assert len(files) == 2
    for key in ("loss", "learning_rate", "grad_norm", "tokens", "val_loss"):
        assert _scalars(tracked.run, key) == _logged(tracked.run, key), key
    assert [step for step, _ in _scalars(tracked.run, "loss")] == [1, 2, 3, 4, 5, 6]
    assert len(_scalars(tracked.run, "tokens_per_s")) == 6


def test_tensorboard_without_the_mark_of_the_resume_would_have_a_step_twice(tracked: Tracked, tmp_path: Path) -> None:
    """What the test above stands on: the killed process has sent the row of step 3."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = min((tracked.run / "logs" / "tensorboard").iterdir())
    shutil.copy(first, tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_wandb_offline_holds_both_parts_under_one_id(tracked: Tracked) -> None:
    parts: list[OfflineRun] = offline_runs(tracked.run / "logs" / "wandb")
    record = metadata(tracked.run)
    assert [part.run_id for part in parts] == [record["trackers"]["wandb"]["id"]] * 2
    assert {(part.name, part.project, part.notes) for part in parts} == {("run_001", "a-project", record["name"])}
    assert [row["step"] for row in parts[0].rows] == [1, 2, 3]
    assert [(row["step"], row["loss"]) for row in parts[1].rows] == _logged(tracked.run, "loss")[2:]
    assert parts[1].config["lora.rank"] == 4
    assert parts[1].config["tracking.report_to"] == ALL
    assert parts[1].exit_code == 0
    assert "hub.token" not in parts[1].config


def _mlflow_runs(address: str, project: str) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(project)
    return client, client.search_runs([experiment.experiment_id])


def test_mlflow_has_one_run_with_name_params_and_each_row_once(tracked: Tracked) -> None:
    client, found = _mlflow_runs(tracked.address, "a-project")
    assert len(found) == 1
    run, record = found[0], metadata(tracked.run)
    assert run.info.run_id == record["trackers"]["mlflow"]["id"]
    assert (run.info.run_name, run.info.status) == ("run_001", "FINISHED")
    assert run.data.tags["pitstop.name"] == run.data.tags["mlflow.note.content"] == record["name"]
    assert run.data.params["lora.rank"] == "4"
    assert run.data.params["training.checkpoint.keep_last_n"] == "5"
    for key in ("loss", "learning_rate", "val_loss"):
        history = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
        assert history == _logged(tracked.run, key), key


def test_what_a_resume_changes_is_told_and_a_signal_ends_the_run_as_killed(
    tracked: Tracked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tracked.run.parent, tmp_path / "runs", symlinks=True)
    from support.forked import kill_at_step

    words = ("resume", 1, "--base-dir", tmp_path / "runs", "--epochs", 3, "--learning-rate", 0.001)
    ended = pitstop(*words, prepare=kill_at_step(8, signal.SIGTERM))
    assert ended.code == 143, ended.output
    _, found = _mlflow_runs(tracked.address, "a-project")
    assert [run.info.status for run in found] == ["KILLED"]
    assert found[0].data.tags["changed.training.epochs"] == "1 → 3 after step 6"
    assert found[0].data.params["training.epochs"] == "1"
    last = offline_runs(tmp_path / "runs/run_001/logs/wandb")[-1]
    assert (last.config["training.epochs"], last.exit_code) == (3, 130)
    assert "training.learning_rate: 0.01 → 0.001" in last.config["changed.step_6"]


# Mistakes, before anything is spent


def _without(package: str) -> Callable[[], None]:
    return lambda: sys.modules.update({package: None})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("tracker", "environment", "missing", "says"),
    [
        ("wandb", {"WANDB_MODE": "offline"}, "wandb", "pip install 'pitstop[wandb]'"),
        ("mlflow", {}, "mlflow", "pip install 'pitstop[mlflow]'"),
        ("trackio", {}, "trackio", "pip install 'pitstop[trackio]'"),
        (
            "wandb",
            {"WANDB_MODE": "online", "NETRC": "/nowhere"},
            None,
            "wandb login, or set WANDB_API_KEY; or WANDB_MODE=offline",
        ),
        (
            "wandb",
            {"WANDB_MODE": "online", "WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            None,
            "WANDB_MODE=offline",
        ),
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9"}, None, "MLFLOW_TRACKING_URI to the address"),
    ],
)
def test_what_a_tracker_lacks_is_told_before_there_is_a_run(
    tiny_model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tracker: str,
    environment: dict[str, str],
    missing: str | None,
    says: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = arguments(tiny_model, data, tmp_path / "runs", report_to=tracker)
    ended = pitstop(*words, prepare=_without(missing) if missing else None)
    assert ended.code == 2, ended.output
    assert says in ended.output
    assert "secret" not in ended.output
    assert not (tmp_path / "runs" / "run_001").exists()


def test_an_unknown_tracker_is_named_and_the_nearest_suggested(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    ended = pitstop(*arguments(tiny_model, data, tmp_path, report_to="tensorboard,wandbb"))
    assert ended.code == 2
    assert "--report-to: wandbb is not a tracker." in ended.output
    assert "Did you mean wandb?" in ended.output


# Trouble on the way


def _troubled(trouble: Callable[[], None]) -> Callable[[], None]:
    def prepare() -> None:
        from pitstop.trainers.tracking import tracking
        from pitstop.trainers.tracking.tensorboard_run import TensorBoardRun

        tracking.CLOSE_TIMEOUT_S = 0.5
        original = TensorBoardRun.log

        def log(self: TensorBoardRun, values: Any, step: int | None = None, **named: Any) -> None:
            if step == 3:
                trouble()
            original(self, values, step, **named)

        TensorBoardRun.log = log  # type: ignore[method-assign]

    return prepare


def _refuse() -> None:
    raise ConnectionError("the disk has gone")


@pytest.mark.parametrize(("trouble", "says"), [(_refuse, "ConnectionError: the disk has gone"), (lambda: time.sleep(60), None)])
def test_a_tracker_that_fails_or_hangs_ends_no_training(
    tracked: Tracked, tiny_model: Path, tmp_path: Path, trouble: Callable[[], None], says: str | None
) -> None:
    data = tracked.plain.parent.parent / "data"
    started = time.monotonic()
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **SETTINGS), prepare=_troubled(trouble))
    assert ended.code == 0, ended.output
    assert time.monotonic() - started < 30
    assert_same_end(tracked.plain, tmp_path / "run_001")
    assert ended.output.count("does not take what is logged") == (1 if says else 0)
    assert says is None or says in ended.output
    assert "tensorboard did not take 4 entries of the log" in ended.output
    assert [step for step, _ in _scalars(tmp_path / "run_001", "loss")] == [1, 2]


def test_texts_and_images_are_artifacts_of_the_mlflow_run_and_a_deleted_run_is_replaced(server: str, tmp_path: Path) -> None:
    import numpy as np

    from pitstop.trainers.tracking.mlflow_run import MlflowRun
    from pitstop.trainers.tracking.tracker import Subject

    tracker = MlflowRun(Subject("run_001", "a-name", "samples", tmp_path))
    tracker.start()
    tracker.log_text("samples", "a text", 3)
    tracker.log_image("grid", np.zeros((4, 4, 3), dtype=np.uint8), 3)
    tracker.finish("failed")
    client, identity = tracker.tracker, tracker.identity
    assert client.get_run(identity).info.status == "FAILED"
    assert [file.path for file in client.list_artifacts(identity, "samples")] == ["samples/step_00000003.txt"]
    assert [file.path for file in client.list_artifacts(identity, "grid")] == ["grid/step_00000003.png"]
    client.delete_run(identity)
    again = MlflowRun(Subject("run_001", "a-name", "samples", tmp_path, identity=identity, first_step=4))
    again.start()
    assert again.identity != identity
    assert again.last_step() == 0
