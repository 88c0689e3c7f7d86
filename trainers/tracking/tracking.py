"""What the training holds of its trackers: opened before the first step, told each logged row, closed with the outcome."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import read_rows
from pitstop.checkpointing.runs.metadata import COMPLETED, FAILED, INTERRUPTED, RecordedResume
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import SettingsError, first_line
from pitstop.configs.load import settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tracking.channel import Channel
from pitstop.trainers.tracking.mlflow_run import MlflowRun
from pitstop.trainers.tracking.tensorboard_run import TensorBoardRun
from pitstop.trainers.tracking.tracker import RunTracker, Subject, flat, is_identity, numbers, shown
from pitstop.trainers.tracking.trackio_run import TrackioRun
from pitstop.trainers.tracking.wandb_run import WandbRun

OPEN_TIMEOUT_S = 40.0
CLOSE_TIMEOUT_S = 15.0
CLOSE_AFTER_SIGNAL_S = 5.0
"""Whoever stops a training by a signal wants it to end."""


_WITHOUT_EFFECT = ("tracking.", "hub.")  # settings that change no row

# A new tracker is one file in this package and one line here, and its name in configs/schema.py.
TRACKERS: dict[str, type[RunTracker]] = {kind.name: kind for kind in (TensorBoardRun, WandbRun, MlflowRun, TrackioRun)}


class Tracking:
    """The trackers of one training. Only the first process has any."""

    def __init__(self, settings: Settings, reporter: Reporter, *, is_main: bool) -> None:
        self.settings, self.reporter = settings, reporter
        self._kinds = [TRACKERS[name] for name in settings.tracking.report_to] if is_main else []
        self._channels: list[Channel] = []
        self._newest_steps: dict[str, int] = {}  # tracker → newest step that it has already, as it would be logged again

    def check(self) -> None:
        """Raise ``SettingsError`` where a tracker cannot be used: no package, no key, no server."""
        for kind in self._kinds:
            kind.check()

    @contextlib.contextmanager
    def of(self, run: RunDirectory | None) -> Iterator[None]:
        """Track ``run`` while inside; new, or as its metadata says that it was resumed. ``SettingsError``.

        What ends the training decides what is told to the trackers; nothing they do then is raised.
        """
        if run is None or not self._kinds:
            yield
            return
        status, timeout_s = COMPLETED, CLOSE_TIMEOUT_S
        try:
            self._open(run)
            yield
            if run.metadata().status == INTERRUPTED:
                status, timeout_s = INTERRUPTED, CLOSE_AFTER_SIGNAL_S
        except (KeyboardInterrupt, SystemExit):
            status, timeout_s = INTERRUPTED, CLOSE_AFTER_SIGNAL_S
            raise
        except BaseException:
            status, timeout_s = FAILED, CLOSE_AFTER_SIGNAL_S
            raise
        finally:
            self._close(status, timeout_s)

    def log(self, row: Mapping[str, Any]) -> None:
        """Send a row of the log to each tracker. Never waits, never raises."""
        for channel in self._channels:
            if row["step"] > self._newest_steps.get(channel.tracker.name, 0):
                channel.put_row(numbers(row), row["step"])

    def log_text(self, name: str, text: str, step: int) -> None:
        """Send a text, such as a generated sample. Never waits, never raises."""
        for channel in self._channels:
            channel.put(channel.tracker.log_text, name, shown(text), step)

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Send an image: height × width × 3, unsigned bytes, RGB. Never waits, never raises."""
        copied = image.copy()  # the caller may go on writing into it
        for channel in self._channels:
            channel.put(channel.tracker.log_image, name, copied, step)

    # Opening and closing

    def _open(self, run: RunDirectory) -> None:
        resumes = run.metadata().resumes  # the last of them is what this process has just put on record
        resume = resumes[-1] if resumes else None
        # As far as they can be what a training wrote.
        entries = run.metadata().trackers.items()
        recorded_ids = {name: entry.get("id") for name, entry in entries if name in TRACKERS and isinstance(entry, dict)}
        identities = {name: str(identity) for name, identity in recorded_ids.items() if is_identity(identity)}
        for kind in self._kinds:
            identity = identities.get(kind.name, "")
            channel = Channel(kind(self._subject(run, identity, resume)), self.reporter.warn)
            with _generators_kept():
                self._start(channel)
            self._channels.append(channel)
            if identity and channel.tracker.identity != identity:
                self.reporter.warn(f"{kind.name} no longer has the run that this one was tracked in: it goes on in a new one.")
        recorded = {name: {"id": identity} for name, identity in identities.items()}
        current = {c.tracker.name: {"id": c.tracker.identity} for c in self._channels if c.tracker.identity}
        if current and current != recorded:
            run.update_metadata({"trackers": {**recorded, **current}})
        for channel in self._channels:
            self._introduce(channel, run, resume)

    def _subject(self, run: RunDirectory, identity: str, resume: RecordedResume | None) -> Subject:
        first = None
        if resume is not None and resume.step is not None:
            # The row of a step whose evaluation was put off comes after that.
            first = resume.step if layout.is_pending(resume.checkpoint or "") else resume.step + 1
        return Subject(run.label, run.name, self.settings.tracking.project, run.logs_dir, identity, first)

    def _start(self, channel: Channel) -> None:
        name = channel.tracker.name
        try:
            channel.open(OPEN_TIMEOUT_S)
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise SettingsError(
                f"REPORT_TO = {name}: the tracker cannot be started ({shown(reason)[:300]}).",
                hint=f"Put that right, or leave {name} out of --report-to (--report-to none turns all trackers off).",
            ) from error

    def _introduce(self, channel: Channel, run: RunDirectory, resume: RecordedResume | None) -> None:
        tracker = channel.tracker
        channel.put(tracker.store_init_configuration, flat(settings_to_dict(self.settings)))
        if resume is None:
            return
        changes = {path: (former, value) for path, (former, value) in resume.changes.items()}
        if changes:
            channel.put(tracker.note_changes, changes, resume.step)
        other_rows = resume.environment_changes or [path for path in changes if not path.startswith(_WITHOUT_EFFECT)]
        self._catch_up(channel, run, exact=not other_rows)

    def _catch_up(self, channel: Channel, run: RunDirectory, *, exact: bool) -> None:
        """Send the rows that the tracker lacks; those that it has are not sent again where they will be the same."""
        try:
            last = channel.tracker.last_step()
        except Exception as error:  # noqa: BLE001 - it has just answered: rows are doubled at worst
            self.reporter.warn(f"{channel.tracker.name} did not say what it has: {shown(first_line(error))}")
            return
        if last is None:
            return
        for row in read_rows(run.metrics_path):
            if row["step"] > last:
                channel.put_row(numbers(row), row["step"])
        if exact:
            self._newest_steps[channel.tracker.name] = last

    def _close(self, status: str, timeout_s: float) -> None:
        for channel in self._channels:
            if lost := channel.close(status, timeout_s):
                self.reporter.warn(
                    f"{channel.tracker.name} did not take {lost} entries of the log; {layout.METRICS} has every row."
                )
        self._channels = []


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Put Python's, NumPy's and torch's random state back afterwards: a library may draw or seed while it starts."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
