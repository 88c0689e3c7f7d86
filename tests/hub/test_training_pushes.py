"""A training that pushes: every checkpoint arrives, once, byte for byte, whatever the line and the Hub do; the training is the same."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk.locking import is_locked
from support.forked import Child
from support.hub import Hub
from support.hub.access import User
from support.hub.environment import environment
from support.hub.pushed import SAVES, SETTINGS, PushedTraining
from support.training import assert_same_end
from support.trials import Trainings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300), pytest.mark.usefixtures("warm"), pytest.mark.by_turns("mode")]


@pytest.fixture
def undisturbed(trainings: Trainings) -> Path:
    """The run of the same training without the Hub."""
    return trainings.reference("without the Hub", SETTINGS).run


@pytest.fixture
def training(trainings: Trainings, hub: Hub, hub_environment: dict[str, str]) -> Iterator[PushedTraining]:
    """A training that pushes to ``hub``."""
    yield PushedTraining(trainings, hub, hub_environment)


def wait_until(condition: Callable[[], Any], timeout: float = 60.0) -> None:
    """Return once ``condition`` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def saved(training: PushedTraining, step: int) -> Callable[[], bool]:
    """Whether the checkpoint of ``step`` is, or was, there."""
    log = training.run / "logs" / "train.log"
    return lambda: log.exists() and f"saved checkpoint-{step} " in log.read_text()


def undisturbed_line(hub: Hub, training: PushedTraining, child: Child) -> None:
    """Nothing happens."""


def bursts_of_503_and_429(hub: Hub, training: PushedTraining, child: Child) -> None:
    """The Hub is overloaded now and then, asking for patience it does not mean."""
    hub.fault(path="/preupload/", skip=2, times=3, status=503)
    hub.fault(path="/commit/", skip=1, times=2, status=429, headers={"Retry-After": "0"})
    hub.fault(path="/commit/", skip=4, times=2, status=500)
    hub.fault(path="/api/repos/create", times=1, status=503)


def lines_dropped_around_commits(hub: Hub, training: PushedTraining, child: Child) -> None:
    """Before, in the middle of, and after a commit: then its answer is lost, but not the commit."""
    hub.fault(path="/commit/", skip=1, drop="before")
    hub.fault(path="/commit/", skip=3, drop="body", after=2000)
    hub.fault(path="/commit/", skip=5, times=2, drop="after")
    hub.fault(method="PUT|POST", path="/_lfs/|/v1/xorbs", skip=2, drop="body", after=100)
    hub.fault(path="/api/repos/create", drop="after")


def a_slow_server(hub: Hub, training: PushedTraining, child: Child) -> None:
    """A few dozen kilobytes a second."""
    hub.fault(method="PUT|POST", path="/_lfs/|/v1/xorbs|/commit/", times=-1, rate=1_000_000, delay=0.02)


def down_for_the_middle_third(hub: Hub, training: PushedTraining, child: Child) -> None:
    """The server is away from the fifth to the ninth save."""
    wait_until(saved(training, 4))
    hub.down()
    wait_until(saved(training, 8))
    hub.up()


DISTURBANCES = [
    undisturbed_line,
    bursts_of_503_and_429,
    lines_dropped_around_commits,
    a_slow_server,
    down_for_the_middle_third,
]


@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_every_checkpoint_arrives_and_the_training_is_the_same(
    disturb: Callable[[Hub, PushedTraining, Child], None], training: PushedTraining, hub: Hub, undisturbed: Path
) -> None:
    late = disturb in (down_for_the_middle_third,)
    training.delay_s = 0.1 if late else 0.0
    if not late:
        disturb(hub, training, None)  # type: ignore[arg-type]
    child = training.start()
    if late:
        disturb(hub, training, child)
    ended = child.wait(120)
    assert ended.code == 0, ended.output
    assert "not on the Hub yet" not in ended.output
    training.assert_arrived(undisturbed)
    assert_same_end(undisturbed, training.run)


def test_retention_of_one_drops_no_checkpoint_on_the_hub(training: PushedTraining, hub: Hub, undisturbed: Path) -> None:
    training.settings = {"keep_last_n": 1}
    a_slow_server(hub, training, None)  # type: ignore[arg-type]
    ended = training.start().wait(120)
    assert ended.code == 0, ended.output
    training.assert_arrived(undisturbed)
    left = {path.name for path in (training.run / "lora_weights").glob("checkpoint-*")}
    best = (undisturbed / "lora_weights/best").resolve().name
    assert left == {f"checkpoint-{SAVES}", best}, "once they are on the Hub, retention takes the old ones"


def test_killed_during_an_upload_a_resume_brings_the_rest(training: PushedTraining, hub: Hub, undisturbed: Path) -> None:
    training.delay_s = 0.4
    hub.fault(path="/commit/", skip=2, delay=1.0)
    child = training.start()
    wait_until(lambda: len(hub.requests("POST", "/commit/")) == 3)
    assert not saved(training, SAVES)()
    child.send(signal.SIGKILL)
    assert child.wait(60).code == -signal.SIGKILL
    training.delay_s = 0.0
    ended = training.resume()
    assert ended.code == 0, ended.output
    training.assert_arrived(undisturbed)
    assert_same_end(undisturbed, training.run)


def test_with_the_hub_away_training_ends_as_ever_and_push_sends_all_later(
    training: PushedTraining, hub: Hub, undisturbed: Path
) -> None:
    training.settings = {"push_timeout": 0.5}
    hub.down()
    ended = training.start().wait(120)
    assert ended.code == 0, ended.output
    assert "The Hub cannot be reached" in ended.output
    assert f"{SAVES} checkpoints are not on the Hub yet; `pitstop push" in ended.output
    assert_same_end(undisturbed, training.run)
    hub.up()
    pushed = training.push()
    assert pushed.code == 0, pushed.output
    training.assert_arrived(undisturbed)


def test_a_limit_on_commits_is_kept_and_what_waits_for_it_is_told(training: PushedTraining, hub: Hub, undisturbed: Path) -> None:
    training.settings = {"hub_commits_per_hour": 4, "push_timeout": 2}
    training.delay_s = 0.3  # checkpoints come one by one, however slow the uploader is: otherwise few commits might bring all
    child = training.start()
    wait_until(lambda: len(hub.requests("POST", "/commit/")) == 2)
    assert not saved(training, SAVES)()
    ended = child.wait(120)
    assert ended.code == 0, ended.output
    assert "not on the Hub yet" in ended.output, "half of the hour's commits as they come, then one in half an hour"
    assert len(hub.requests("POST", "/commit/")) == 2
    assert_same_end(undisturbed, training.run)


def test_the_token_is_nowhere_in_what_was_pushed_or_written(trainings: Trainings, tmp_path: Path) -> None:
    token = "hf_" + "SecretTokenOfThisTest0123456789"
    with Hub(tmp_path / "server", tokens={token: User("tester", "write", ())}, keep_bodies=True) as hub:
        training = PushedTraining(trainings, hub, environment(hub, "lfs", tmp_path / "home", token))
        hub.fault(path="/commit/", skip=1, status=500, body=f"the token {token} is unlucky")
        ended = training.start().wait(120)
        assert ended.code == 0, ended.output
        assert token not in ended.output
        assert not hub.where(token)
    for path in training.run.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_the_uploader_is_gone_when_the_training_is(training: PushedTraining, hub: Hub) -> None:
    hub.fault(path="/commit/", times=-1, delay=30.0)
    child = training.start()
    wait_until(lambda: hub.requests("POST", "/commit/"))
    lock = training.run / "hub" / ".lock"
    child.send(signal.SIGKILL)
    child.wait(60)
    wait_until(lambda: not is_locked(lock), timeout=5)
    assert lock.exists()
