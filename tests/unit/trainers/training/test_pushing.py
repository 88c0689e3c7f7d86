"""The uploader's process beside a training: what its events make the user read, and what no event may do to the training."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.configs.errors import HubError
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.pushing import MOST_STARTS, Pusher, is_pushed, stop_pushing
from support.displays import Lines
from support.fake_training import settings_with
from support.new_runs import start

# Answers each command with the events that are on its list for it, and notes the commands.
_UPLOADER = """
import json, sys
answers, commands = json.loads(sys.argv[1]), open(sys.argv[2], "a")
def tell(key):
    for event in answers.get(key, []):
        if event["event"] == "exit":
            sys.stderr.write("it broke")
            sys.stderr.flush()
            sys.exit(event["code"])
        print(json.dumps(event), flush=True)
tell("start")
for line in sys.stdin:
    commands.write(line); commands.flush()
    tell(next(iter(json.loads(line))))
    if "finish" in line:
        break
"""
ACCOUNT = {"event": "account", "can_write": True}
READY = {"event": "ready", "repo": "me/a-run", "made": True}
REFUSED = {"event": "refused", "message": "the token is not valid", "hint": "log in again"}

Push = Callable[..., Pusher]


@pytest.fixture
def display() -> Lines:
    return Lines()


@pytest.fixture
def push(display: Lines, tmp_path: Path) -> Iterator[Push]:
    """Starts a pusher whose uploader gives these events, by the command that they answer."""
    pushers: list[Pusher] = []

    def started(answers: dict[str, list[dict[str, Any]]], flags: tuple[str, ...] = (), **settings: Any) -> Pusher:
        command = [sys.executable, "-S", "-c", _UPLOADER, json.dumps(answers), str(tmp_path / "commands.jsonl")]
        pushers.append(Pusher(settings_with(hub__push=True, **settings), Reporter(display), flags, command))
        pushers[-1].start()
        return pushers[-1]

    yield started
    for pusher in pushers:
        pusher.close()


@pytest.fixture
def commands(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """What the uploader was told."""
    return lambda: [json.loads(line) for line in (tmp_path / "commands.jsonl").read_text().splitlines()]


def test_a_good_account_says_nothing_and_the_repository_is_named_once(push: Push, display: Lines, tmp_path: Path) -> None:
    pushed = {"event": "pushed", "what": "epoch_001", "repo": "me/a-run", "commit": "0123456789"}
    pusher = push({"start": [ACCOUNT], "open": [READY], "finish": [pushed]})
    pusher.check_account()
    assert not display.lines and not display.warnings
    run = start(tmp_path)
    pusher.open(run)
    pusher.finish(completed=True)
    assert display.lines == ["Pushing every checkpoint to me/a-run (new, private).", "pushed epoch_001 (0123456)"]
    assert Outbox(run.path).destination() == Destination.of(pusher.settings.hub)
    assert pusher.left == [] and pusher.summary() == {"repo": None, "left": []}


def test_an_account_that_is_refused_is_told_once_and_training_goes_on(push: Push, display: Lines, tmp_path: Path) -> None:
    pusher = push({"start": [REFUSED], "open": [REFUSED]})
    pusher.check_account()
    pusher.open(start(tmp_path))
    assert display.warnings == [
        "Checkpoints cannot be pushed: the token is not valid. To put it right: log in again. "
        "Training goes on, the checkpoints are kept, and `pitstop push` sends them later."
    ]


@pytest.mark.parametrize(
    ("event", "message"), [(REFUSED, "the token is not valid"), ({**ACCOUNT, "can_write": False}, "the Hub token may only read")]
)
def test_where_pushing_is_required_an_account_that_cannot_write_ends_the_training(
    push: Push, event: dict[str, Any], message: str
) -> None:
    with pytest.raises(HubError, match=message):
        push({"start": [event]}, hub__push_required=True).check_account()


def test_a_hub_that_is_away_is_no_reason_to_end_even_where_pushing_is_required(push: Push, display: Lines) -> None:
    push({"start": [{"event": "unreachable", "reason": "no route"}]}, hub__push_required=True).check_account()
    assert display.warnings == ["The Hub cannot be reached (no route). Checkpoints are kept until they are pushed."]


def test_an_outage_is_told_once_however_often_it_is_tried(push: Push, display: Lines, tmp_path: Path) -> None:
    trouble = {"event": "trouble", "reason": "503"}
    pusher = push({"start": [ACCOUNT], "open": [READY], "finish": [trouble, trouble, trouble]})
    pusher.open(start(tmp_path))
    pusher.finish(completed=True)
    assert display.warnings == ["The Hub does not take checkpoints at the moment (503); it is tried again."]


def test_a_bug_of_the_uploader_is_told_with_what_it_wrote_and_ends_nothing(push: Push, display: Lines, tmp_path: Path) -> None:
    pusher = push({"start": [ACCOUNT], "open": [READY], "finish": [{"event": "exit", "code": 3}]})
    pusher.open(start(tmp_path))
    pusher.finish(completed=True)
    assert display.warnings == ["A bug ended the uploader (exit code 3); the training goes on.\nit broke"]


def test_an_uploader_that_dies_is_started_again_at_the_next_save_and_given_up_after_a_few_times(
    push: Push, tmp_path: Path, commands: Callable[[], list[dict[str, Any]]]
) -> None:
    pusher = push({"open": [READY], "wake": [{"event": "exit", "code": 0}]})
    run = start(tmp_path)
    pusher.open(run)
    for _ in range(MOST_STARTS + 3):
        pusher.wake()
        deadline = time.monotonic() + 20.0
        while not pusher.has_ended() and time.monotonic() < deadline:
            time.sleep(0.005)
    opened = {
        "open": str(run.path),
        "retry_s": pusher.settings.hub.retry_s,
        "commits_per_hour": pusher.settings.hub.commits_per_hour,
    }
    assert commands() == [opened, {"wake": True}] * MOST_STARTS


def test_after_close_a_save_wakes_nobody(push: Push, tmp_path: Path, commands: Callable[[], list[dict[str, Any]]]) -> None:
    pusher = push({"start": [ACCOUNT], "open": [READY]})
    pusher.open(start(tmp_path))
    pusher.close()
    pusher.wake()
    assert [next(iter(command)) for command in commands()] == ["open"]


def test_an_uploader_that_cannot_be_started_is_a_warning(display: Lines) -> None:
    pusher = Pusher(settings_with(hub__push=True), Reporter(display), command=["/nonexistent/uploader"])
    pusher.start()
    pusher.check_account()
    pusher.close()
    assert "The uploader could not be started" in display.warnings[0]


def test_a_resume_changes_of_where_a_run_goes_only_what_it_was_given(push: Push, tmp_path: Path) -> None:
    run = start(tmp_path)
    Outbox(run.path, run.storage).open(Destination(repo="me/elsewhere", private=False))
    push({"open": [READY]}, ("hub.private",), hub__private=True, hub__repo="me/not-this-one").open(run)
    destination = Outbox(run.path).destination()
    assert destination is not None and (destination.repo, destination.private) == ("me/elsewhere", True)


def test_a_run_is_pushed_as_it_was_until_that_is_turned_off(tmp_path: Path) -> None:
    run, settings = start(tmp_path), settings_with()
    assert not is_pushed(settings, None) and not is_pushed(settings, run)
    assert is_pushed(settings_with(hub__push=True), None)
    Outbox(run.path, run.storage).open(Destination(repo="me/a-run"))
    assert is_pushed(settings, run) and not is_pushed(settings, run, {"hub.push"})
    stop_pushing(run)
    assert not is_pushed(settings, run)
