"""What trackers are told of a run, under which identity they go on, and how they are closed."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker

from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, SettingsError
from pitstop.configs.load import load_settings
from pitstop.configs.schema import TRACKERS as NAMES
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tracking import tracking as module
from pitstop.trainers.tracking.channel import Channel
from pitstop.trainers.tracking.tensorboard_run import TensorBoardRun
from pitstop.trainers.tracking.tracker import RunTracker, Subject, flat, is_identity, numbers
from pitstop.trainers.tracking.tracking import TRACKERS, Tracking
from support.displays import Lines


class Fake(RunTracker):
    """Keeps what it is told; has rows up to ``has`` from an earlier process."""

    name = "mlflow"
    package = "json"
    made: list[Fake] = []  # noqa: RUF012 - cleared by a fixture
    has: int | None = None

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.told: list[Any] = []
        Fake.made.append(self)

    @property
    def tracker(self) -> list[Any]:
        return self.told

    @property
    def identity(self) -> str:
        return self.subject.identity or "new-id"

    def last_step(self) -> int | None:
        return self.has

    def start(self) -> None:
        random.seed(0)  # as a library might
        np.random.seed(0)
        torch.manual_seed(0)

    def store_init_configuration(self, values: Any) -> None:
        self.told.append(("settings", values["lora.rank"]))

    def note_changes(self, changes: Any, step: int) -> None:
        self.told.append(("changes", changes, step))

    def log(self, values: Any, step: int | None = None, **_: Any) -> None:
        self.told.append(("row", step))

    def log_text(self, name: str, text: str, step: int) -> None:
        self.told.append(("text", text))

    def finish(self, status: str = "completed") -> None:
        self.told.append(("end", status))


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Fake.made.clear()
    monkeypatch.setattr(Fake, "has", None)
    monkeypatch.setitem(TRACKERS, "mlflow", Fake)
    yield


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    metadata = {"trackers": {"mlflow": {"id": "known-id"}}}
    return create_run(tmp_path, name="a-name", config={}, metadata=metadata, started_at=datetime.now().astimezone())


def _tracking(warnings: Lines | None = None, report_to: str = "mlflow") -> Tracking:
    loaded = load_settings(flags={"tracking.report_to": [report_to]}, environ={})
    return Tracking(loaded.settings, Reporter(warnings or Lines()), is_main=True)


def _resumed(run: RunDirectory, step: int, **more: Any) -> None:
    entry = {"checkpoint": f"checkpoint-{step}", "step": step, "changes": {}, **more}
    run.update_metadata({"resumes": [entry]})


def _rows(told: list[Any]) -> list[int]:
    return [entry[1] for entry in told if entry[0] == "row"]


def _log(run: RunDirectory, steps: range) -> None:
    with closing(MetricsLog(run.metrics_path)) as log:
        for step in steps:
            log.append({"step": step, "loss": 1.0})


def test_every_tracker_of_the_schema_is_one_of_accelerate() -> None:
    assert set(TRACKERS) == set(NAMES)
    assert all(issubclass(kind, GeneralTracker) for kind in TRACKERS.values())


def test_only_the_first_process_tracks(run: RunDirectory) -> None:
    settings = load_settings(flags={"tracking.report_to": ["mlflow"]}, environ={}).settings
    tracking = Tracking(settings, Reporter(Lines()), is_main=False)
    tracking.check()
    with tracking.of(run):
        tracking.log({"step": 1, "loss": 1.0})
    assert Fake.made == []


@pytest.mark.parametrize(
    ("error", "status", "end"),
    [
        (None, "completed", "completed"),
        (None, "stopped", "completed"),
        (None, "interrupted", "interrupted"),
        (KeyboardInterrupt, "running", "interrupted"),
        (SystemExit, "running", "interrupted"),
        (CheckpointError, "running", "failed"),
        (RuntimeError, "running", "failed"),
    ],
)
def test_a_run_is_closed_as_it_ended(run: RunDirectory, error: type[BaseException] | None, status: str, end: str) -> None:
    def train() -> None:
        with _tracking().of(run):
            run.update_metadata({"status": status})
            if error is not None:
                raise error("…")

    if error is None:
        train()
    else:
        with pytest.raises(error):
            train()
    assert Fake.made[0].told[-1] == ("end", end)


def test_starting_a_tracker_leaves_the_random_states_as_they_were(run: RunDirectory) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with _tracking().of(run):
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_a_tracker_that_loses_its_run_is_told_of_and_the_new_identity_kept(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings = Lines()
    monkeypatch.setattr(Fake, "identity", "another-id")
    with _tracking(warnings).of(run):
        pass
    assert Fake.made[0].subject.identity == "known-id"
    assert run.metadata().trackers == {"mlflow": {"id": "another-id"}}
    assert "no longer has the run" in warnings.warnings[0]


@pytest.mark.parametrize(
    "trackers",
    [None, 3, ["mlflow"], {"mlflow": "id"}, {"mlflow": {"id": 3}}, {"mlflow": {"id": "../../x"}}, {"mlflow": {"id": "x" * 200}}],
)
def test_what_the_metadata_says_of_trackers_is_not_trusted(run: RunDirectory, trackers: Any) -> None:
    run.update_metadata({"trackers": trackers})
    with _tracking().of(run):
        pass
    assert Fake.made[0].subject.identity == ""
    assert run.metadata().trackers == {"mlflow": {"id": "new-id"}}


def test_an_identity_can_be_no_path() -> None:
    assert [text for text in ("a1", "run_001-name.x", "", ".", "..", "a/b", "-a", "a b", 3, None) if is_identity(text)] == [
        "a1",
        "run_001-name.x",
    ]


def test_a_resume_sends_the_rows_that_the_tracker_lacks(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage before the kill: the log has steps 1 to 4, the tracker only 1 and 2."""
    monkeypatch.setattr(Fake, "has", 2)
    _log(run, range(1, 5))
    _resumed(run, 4)
    tracking = _tracking()
    with tracking.of(run):
        tracking.log({"step": 5, "loss": 1.0})
    assert _rows(Fake.made[0].told) == [3, 4, 5]
    assert Fake.made[0].subject.first_step == 5


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({}, [4]),
        ({"changes": {"hub.push": [False, True]}}, [4]),
        ({"changes": {"training.learning_rate": [1.0, 2.0]}}, [3, 4]),
        ({"environment_changes": {"torch": ["1", "2"]}}, [3, 4]),
    ],
)
def test_rows_that_the_tracker_has_are_sent_again_only_where_they_may_differ(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], sent: list[int]
) -> None:
    monkeypatch.setattr(Fake, "has", 3)
    _log(run, range(1, 3))
    _resumed(run, 2, **more)
    tracking = _tracking()
    with tracking.of(run):
        for step in (3, 4):
            tracking.log({"step": step, "loss": 1.0})
    assert _rows(Fake.made[0].told) == sent
    assert [entry[0] for entry in Fake.made[0].told].count("changes") == (1 if "changes" in more else 0)


def test_a_step_whose_evaluation_was_put_off_is_logged_anew(run: RunDirectory) -> None:
    _resumed(run, 4, checkpoint="checkpoint-4-pending")
    with _tracking().of(run):
        pass
    assert Fake.made[0].subject.first_step == 4


def test_a_tracker_that_cannot_start_closes_the_others_and_is_a_mistake_of_the_settings(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TensorBoardRun) -> None:
        raise PermissionError("no entry for http://me:secret@host")

    monkeypatch.setattr(TensorBoardRun, "start", refuse)
    with (
        pytest.raises(SettingsError, match="tensorboard: the tracker cannot be started") as caught,
        _tracking(report_to="mlflow,tensorboard").of(run),
    ):
        pytest.fail("it must not come here")
    assert "secret" not in caught.value.message
    assert Fake.made[0].told[-1] == ("end", "failed")


def test_texts_carry_no_token(run: RunDirectory) -> None:
    token = "hf_" + "a" * 30
    tracking = _tracking()
    with tracking.of(run):
        tracking.log_text("samples", f"my token is {token}", 1)
    assert ("text", "my token is <hidden>") in Fake.made[0].told
    assert flat({"model": {"id": f"x-{token}"}}) == {"model.id": "x-<hidden>"}


def test_settings_are_flat_and_rows_are_numbers() -> None:
    assert flat({"a": {"b": [1, 2], "c": None, "d": True}, "e": 1e-5}) == {"a.b": "1,2", "a.c": "none", "a.d": True, "e": 1e-5}
    assert numbers({"step": 3, "loss": 1.5, "tokens": 7, "val_loss": None, "name": "x"}) == {"loss": 1.5, "tokens": 7}


# TensorBoard, with its own files


def _events(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"tensors": 0, "images": 0})
    events.Reload()
    return events


def test_texts_images_and_settings_reach_tensorboard(tmp_path: Path) -> None:
    tracker = TensorBoardRun(Subject("run_001", "a-name", "pitstop", tmp_path))
    tracker.start()
    tracker.store_init_configuration({"lora.rank": 8, "model.id": "x"})
    tracker.log_text("samples", "a text", 3)
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[..., 0] = 255
    tracker.log_image("grid", image, 3)
    tracker.finish()
    events = _events(tmp_path / "tensorboard")
    [text] = events.Tensors("samples/text_summary")
    assert (text.step, text.tensor_proto.string_val[0]) == (3, b"a text")
    [picture] = events.Images("grid")
    assert (picture.step, picture.height, picture.width) == (3, 4, 6)
    settings = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"lora.rank" in settings and b"model.id" in settings


def test_two_event_files_of_one_second_are_read_in_the_order_in_which_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for pid, first_step, value in ((99999, None, 1.0), (1000, 2, 2.0)):  # the second one's name would sort first
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        tracker = TensorBoardRun(Subject("run_001", "a-name", "pitstop", tmp_path, first_step=first_step))
        tracker.start()
        for step in range(first_step or 1, 4):
            tracker.log({"loss": value}, step)
        tracker.finish()
    assert [(event.step, event.value) for event in _events(tmp_path / "tensorboard").Scalars("loss")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 2.0),
    ]


def test_no_tracker_draws_from_the_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from pitstop.trainers.tracking.wandb_run import WandbRun

    monkeypatch.setenv("WANDB_MODE", "offline")
    for kind in (TensorBoardRun, WandbRun):
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        tracker = kind(Subject("run_001", "a-name", "pitstop", tmp_path))
        tracker.start()
        tracker.store_init_configuration({"lora.rank": 8})
        tracker.log({"loss": 1.0}, 1)
        tracker.log_text("samples", "a <b>text</b>", 1)
        tracker.log_image("grid", np.zeros((4, 4, 3), dtype=np.uint8), 1)
        tracker.finish()
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        assert before[:2] == after[:2], kind.name
        assert torch.equal(before[2], after[2]), kind.name
    [page] = tmp_path.rglob("*.html")
    assert "a &lt;b&gt;text&lt;/b&gt;" in page.read_text()
    assert len(list(tmp_path.rglob("*.png"))) == 1


def test_no_status_is_unknown_to_a_tracker() -> None:
    from pitstop.trainers.tracking.mlflow_run import _STATUS

    assert set(_STATUS) == {module.COMPLETED, module.INTERRUPTED, module.FAILED}


def test_mlflow_takes_the_names_of_all_metrics() -> None:
    pytest.importorskip("mlflow")
    from mlflow.utils.validation import _validate_metric_name

    from pitstop.trainers.tasks.rank.measures import NAMES
    from pitstop.trainers.tracking.mlflow_run import metric_name

    assert metric_name("ndcg@10") == "ndcg_at_10" and metric_name("val_loss") == "val_loss"
    for name in (*NAMES, "loss_Daten ä+b", "ner_chemical_f1"):
        _validate_metric_name(metric_name(name))


def test_trackio_goes_on_in_the_run_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    from pitstop.trainers.tracking.trackio_run import TrackioRun

    identity = ""
    for steps in ((1, 2), (3,)):
        tracker = TrackioRun(Subject("run_001", "a-name", "a-project", tmp_path, identity=identity))
        channel = Channel(tracker, pytest.fail)
        channel.open(30)
        channel.put(tracker.store_init_configuration, {"lora.rank": 8})
        for step in steps:
            channel.put_row({"loss": float(step)}, step)
        channel.put(tracker.log_text, "samples", "a text", steps[-1])
        channel.put(tracker.log_image, "grid", np.zeros((4, 4, 3), dtype=np.uint8), steps[-1])
        assert channel.close("completed", 30) == 0
        identity = tracker.identity
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    [run] = trackio.Api().runs("a-project")
    assert run.name == identity == "run_001-a-name"
    assert run.config["lora.rank"] == 8
    with sqlite3.connect(tmp_path / "a-project.db") as database:
        found = [(step, json.loads(text)) for step, text in database.execute("SELECT step, metrics FROM metrics ORDER BY id")]
    assert [(step, values["loss"]) for step, values in found if "loss" in values] == [(1, 1.0), (2, 2.0), (3, 3.0)]
