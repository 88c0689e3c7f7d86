from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pitstop.checkpointing.hub.client import Conflict, Offline, Refused, Unavailable
from pitstop.checkpointing.hub.pacing import Backoff
from pitstop.checkpointing.hub.pump import pump
from pitstop.checkpointing.hub.uploader import Pushed, Spoilt
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import PitstopError
from support.fake_hub import REPO, Clock, FakeHub, Nth, add, lost, new_run, raising, uploader

pytestmark = pytest.mark.usefixtures("undrawn")


class Around:
    """Waits by moving the clock, and notes what it is told. ``on_wait`` is called at each pause and may say that it is over."""

    def __init__(self, clock: Clock, *, ending: bool = True, finished: bool = True) -> None:
        self.clock, self.ending, self.finished = clock, ending, finished
        self.pauses: list[float | None] = []
        self.told: list[str] = []
        self.on_wait: Callable[[float | None], bool] = lambda seconds: True

    def wait(self, seconds: float | None) -> bool:
        self.pauses.append(seconds)
        assert len(self.pauses) < 100, self.told
        self.clock.now += seconds or 0.0
        return self.on_wait(seconds)

    def pushed(self, commit: Pushed) -> None:
        self.told.append(f"pushed {','.join(commit.names)}")

    def trouble(self, reason: str, wait_s: float) -> None:
        self.told.append(f"trouble {reason}")

    def spoilt(self, error: Spoilt) -> None:
        self.told.append("spoilt")

    def stopped(self, error: PitstopError) -> None:
        self.told.append(f"stopped {error.message}")


ALL = ["pushed checkpoint-1", "pushed checkpoint-2", "pushed checkpoint-3"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def go(run: RunDirectory, hub: FakeHub, around: Around, commits_per_hour: int = 100) -> bool:
    return pump(uploader(run, hub, around.clock, commits_per_hour), Backoff(2.0, max), around, around)


def test_it_ends_when_all_is_there(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    around = Around(clock)
    assert go(run, hub, around)
    assert around.told == ALL
    assert around.pauses == []
    assert hub.inventory().finished
    assert go(run, hub, Around(clock)), "and does nothing where nothing is left"
    assert len(hub.titles()) == 3


def test_during_training_it_waits_for_more_until_the_end(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    around = Around(clock, ending=False, finished=False)

    def something_new(seconds: float | None) -> bool:
        assert seconds is None
        if len(around.pauses) == 1:
            add(run, 4, 0.05)
        else:
            assert not hub.inventory().finished
            around.ending = around.finished = True
        return True

    around.on_wait = something_new
    assert go(run, hub, around)
    assert around.told == [*ALL, "pushed checkpoint-4", "pushed "]
    assert hub.inventory().finished


def test_an_end_without_completion_leaves_the_newest_at_the_root(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    assert go(run, hub, Around(clock, finished=False))
    assert hub.inventory().root == "checkpoint-3"
    assert not hub.inventory().finished


def test_outages_are_waited_out_with_growing_pauses(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    hub.before = Nth("upload", 2, raising(Unavailable("503")), times=3)
    around = Around(clock, ending=False, finished=False)
    around.on_wait = lambda seconds: seconds is not None
    assert not go(run, hub, around)
    assert around.told == [ALL[0], *["trouble 503"] * 3, *ALL[1:]]
    assert around.pauses == [2.0, 4.0, 8.0, None]


def test_success_makes_the_next_pause_short_again(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    failures = iter([True, True, False, True])
    hub.before = lambda call: call == "upload" and next(failures, False) and raising(Unavailable("503"))()
    around = Around(clock)
    assert go(run, hub, around)
    assert around.pauses == [2.0, 4.0, 2.0]


def test_what_the_server_asks_for_is_waited_but_not_so_long_at_the_end(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    for ending, pause in ((False, 120.0), (True, 20.0)):
        hub.before = Nth("upload", 1, raising(Unavailable("429", 120.0)))
        around = Around(clock, ending=ending, finished=False)
        around.on_wait = lambda seconds: False
        assert not go(run, hub, around)
        assert around.pauses == [pause]


def test_an_error_of_the_disk_is_tried_again(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    hub.before = Nth("download", 1, raising(OSError(28, "No space left on device")))
    around = Around(clock)
    assert go(run, hub, around)
    assert around.told[0].startswith("trouble")
    assert around.told[1:] == ALL


def test_giving_up_is_no_success(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    hub.before = raising_at("commit", Unavailable("503"))
    around = Around(clock)
    around.on_wait = lambda seconds: len(around.pauses) < 5
    assert not go(run, hub, around)
    assert len(around.pauses) == 5


def raising_at(name: str, error: Exception) -> Callable[[str], object]:
    """Raises at every call of ``name``."""
    return Nth(name, 1, raising(error), times=10_000)


def test_a_refusal_ends_it_is_on_record_and_off_it_when_it_works_again(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    hub.before = raising_at("commit", Refused("no room left"))
    around = Around(clock)
    assert not go(run, hub, around)
    assert around.told == ["stopped no room left"]
    assert around.pauses == []
    assert uploader(run, hub).arrived.problem == "no room left"
    hub.before = lambda call: None
    assert go(run, hub, Around(clock))
    assert uploader(run, hub).arrived.problem is None


def test_a_problem_that_leaves_nothing_to_push_is_off_the_record(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    go(run, hub, Around(clock))
    uploader(run, hub).stopped("no room left")
    assert go(run, hub, Around(clock))
    assert uploader(run, hub).arrived.problem is None


def test_offline_ends_the_end_and_waits_for_news_before(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    hub.before = lambda call: raising(Offline("HF_HUB_OFFLINE is set"))()
    around = Around(clock)
    assert not go(run, hub, around)
    assert around.told == ["trouble HF_HUB_OFFLINE is set"]
    around = Around(clock, ending=False)
    around.on_wait = lambda seconds: len(around.pauses) < 3
    assert not go(run, hub, around)
    assert around.pauses == [None] * 3


def test_conflicts_are_tried_again_at_once_and_then_ever_more_slowly(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    hub.before = raising_at("commit", Conflict("moved on"))
    around = Around(clock)
    around.on_wait = lambda seconds: len(around.pauses) < 7
    assert not go(run, hub, around)
    assert hub.calls.count("commit") == 5 + 7
    assert around.pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]


def test_one_conflict_is_built_upon(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    hub.before = Nth("commit", 2, lambda: hub.change(REPO, notes_txt=b"x"))
    assert go(run, hub, Around(clock))
    assert [title for title in hub.titles() if title != "by hand"] == [f"a-run: checkpoint of step {step}" for step in (1, 2, 3)]


@pytest.mark.parametrize("call", ["create", "upload", "commit"])
def test_lost_answers_make_no_second_commit(run: RunDirectory, hub: FakeHub, clock: Clock, call: str) -> None:
    hub.after = lost(call)
    assert go(run, hub, Around(clock))
    assert len(hub.titles()) == 3


def test_a_damaged_checkpoint_is_told_and_the_others_go(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    path = run.path / "lora_weights/checkpoint-2/optimizer.safetensors"
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))
    around = Around(clock)
    assert go(run, hub, around)
    assert around.told == [ALL[0], "spoilt", ALL[2]]
    assert hub.steps() == [1, 3]


def test_a_short_budget_is_waited_for(tmp_path: Path, hub: FakeHub, clock: Clock) -> None:
    run = new_run(tmp_path, {1: 0.5, 2: 0.5})
    around = Around(clock)
    assert go(run, hub, around, commits_per_hour=2)
    assert around.told == ["pushed checkpoint-1", "pushed checkpoint-2"]
    assert around.pauses == [pytest.approx(3600.0)]


def test_an_end_that_comes_while_nothing_is_left_is_still_pushed(run: RunDirectory, hub: FakeHub, clock: Clock) -> None:
    around, pusher = Around(clock, ending=False, finished=False), uploader(run, hub, clock)
    push_next = pusher.push_next

    def and_then_the_end(*, finished: bool) -> Pushed | None:
        done = push_next(finished=finished)
        around.ending = around.finished = around.finished or done is None
        return done

    pusher.push_next = and_then_the_end  # type: ignore[method-assign]
    assert pump(pusher, Backoff(2.0, max), around, around)
    assert hub.inventory().finished
