"""Whatever a tracker does, the training neither waits for it nor hears of it more than once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.trainers.tracking import channel as channels
from pitstop.trainers.tracking.channel import Channel
from pitstop.trainers.tracking.tracker import RunTracker, Subject


class Recorder(RunTracker):
    """Keeps what it is told; ``act`` may raise or wait before that."""

    name = "recorder"
    package = "json"

    def __init__(self, act: Callable[[str], None] = lambda what: None) -> None:
        super().__init__(Subject("run_001", "a-name", "pitstop", Path()))
        self.act = act
        self.told: list[Any] = []
        self.abandoned = False

    @property
    def tracker(self) -> list[Any]:
        return self.told

    def start(self) -> None:
        self.act("start")

    def log(self, values: Any, step: int | None = None, **_: Any) -> None:
        self.act(f"log {step}")
        self.told.append(step)

    def log_text(self, name: str, text: str, step: int) -> None:
        self.act("text")
        self.told.append(text)

    def finish(self, status: str = "completed") -> None:
        self.act("finish")
        self.told.append(status)

    def abandon(self) -> None:
        self.abandoned = True


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_FIRST_PAUSE_S", 0.01)


@pytest.fixture
def forever() -> Iterator[threading.Event]:
    """What a hanging tracker waits for; set when the test is over, so that its thread ends."""
    event = threading.Event()
    yield event
    event.set()


def _open(tracker: Recorder, warnings: list[str] | None = None) -> Channel:
    channel = Channel(tracker, pytest.fail if warnings is None else warnings.append)
    channel.open(5)
    return channel


def _failing(times: dict[str, int], error: Exception) -> Callable[[str], None]:
    def act(what: str) -> None:
        if times.get(what, 0) > 0:
            times[what] -= 1
            raise error

    return act


def test_rows_arrive_in_order_and_the_run_is_finished_after_them() -> None:
    tracker = Recorder()
    channel = _open(tracker)
    for step in range(1, 50):
        channel.put_row({"loss": 1.0}, step)
    assert channel.close("interrupted", 5) == 0
    assert tracker.told == [*range(1, 50), "interrupted"]
    assert not tracker.abandoned


def test_a_failing_server_is_told_of_once_and_gets_every_row_when_it_is_back() -> None:
    warnings: list[str] = []
    tracker = Recorder(_failing({"log 2": 5, "log 4": 2}, ConnectionError("http://me:secret@host refused")))
    channel = _open(tracker, warnings)
    for step in range(1, 6):
        channel.put_row({"loss": 1.0}, step)
    deadline = time.monotonic() + 10
    while len(tracker.told) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert channel.close("completed", 5) == 0
    assert tracker.told == [1, 2, 3, 4, 5, "completed"]
    assert len(warnings) == 1
    assert "recorder does not take what is logged (ConnectionError: http://host refused)" in warnings[0]


def test_pauses_between_tries_grow() -> None:
    tries: list[float] = []

    def act(what: str) -> None:
        if what == "log 1":
            tries.append(time.monotonic())
            if len(tries) < 5:
                raise ConnectionError("refused")

    channel = _open(Recorder(act), [])
    channel.put_row({}, 1)
    deadline = time.monotonic() + 10
    while len(tries) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tries[4] - tries[3] >= 0.08  # after 0.01, 0.02 and 0.04
    assert channel.close("completed", 5) == 0


def test_an_entry_that_cannot_succeed_does_not_hold_up_the_rows_behind_it() -> None:
    warnings: list[str] = []
    tracker = Recorder(_failing({"text": 99}, OSError("no artifacts here")))
    channel = _open(tracker, warnings)
    channel.put(tracker.log_text, "samples", "a text", 1)
    channel.put_row({}, 1)
    assert channel.close("completed", 5) == 1
    assert tracker.told == [1, "completed"]
    unfit = Recorder(_failing({"log 1": 99}, ValueError("not a number")))
    channel = _open(unfit, warnings)
    channel.put_row({}, 1)
    channel.put_row({}, 2)
    assert channel.close("completed", 5) == 1
    assert unfit.told == [2, "completed"]


def test_a_hanging_tracker_stalls_neither_the_steps_nor_the_end(
    forever: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "MOST_WAITING", 100)
    tracker = Recorder(lambda what: _wait(forever) if what != "start" else None)
    channel = _open(tracker)
    started = time.monotonic()
    for step in range(1, 301):
        channel.put_row({"loss": 1.0}, step)
    assert time.monotonic() - started < 1.0
    assert channel.close("completed", 0.2) == 300  # the newest hundred wait, the others were dropped; none arrived
    assert time.monotonic() - started < 2.0
    assert tracker.told == []
    assert tracker.abandoned


def _wait(event: threading.Event) -> None:
    event.wait(60)


def test_a_tracker_that_cannot_start_says_so_where_it_is_opened(forever: threading.Event) -> None:
    with pytest.raises(ConnectionError, match="refused"):
        Channel(Recorder(_failing({"start": 1}, ConnectionError("refused"))), pytest.fail).open(5)
    hanging = Recorder(lambda what: _wait(forever))
    with pytest.raises(TimeoutError, match="no answer within"):
        Channel(hanging, pytest.fail).open(0.1)
    assert hanging.abandoned


def test_a_failing_finish_is_told_and_raises_nothing() -> None:
    warnings: list[str] = []
    channel = _open(Recorder(_failing({"finish": 9}, RuntimeError("gone"))), warnings)
    assert channel.close("completed", 5) == 0
    assert len(warnings) == 1
