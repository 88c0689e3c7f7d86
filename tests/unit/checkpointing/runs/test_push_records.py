from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs.inventory import RemoteCheckpoint
from pitstop.checkpointing.runs.push_records import BEHIND, FAILED, IN_STEP, Arrived, Destination, Outbox, behind, standing
from pitstop.configs.errors import CheckpointError, RunError
from support.fake_hub import FakeHub, new_run, push_all, uploader
from support.stores import ForgetfulStorage

pytestmark = pytest.mark.usefixtures("undrawn")

T = [f"2026-01-01T12:00:{second:02d}+00:00" for second in range(20)]


def entry(step: int, saved_at: str, name: str | None = None) -> dict[str, Any]:
    return RemoteCheckpoint(name or f"checkpoint-{step}", step, step / 10, saved_at, {"val_loss": 0.5}, 10, "0" * 64).to_dict()


def there(*entries: dict[str, Any]) -> Arrived:
    return Arrived(repo="user/a", pushed={f"checkpoint-{one['step']}": one for one in entries})


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path, ForgetfulStorage())


def test_what_has_not_arrived_is_behind_in_the_order_of_the_run() -> None:
    checkpoints = [(f"checkpoint-{step}", step, T[step]) for step in (1, 2, 3)]
    assert behind(Arrived(), checkpoints) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert behind(there(entry(2, T[2])), checkpoints) == ["checkpoint-1", "checkpoint-3"]
    assert behind(there(entry(1, T[1]), entry(2, T[2]), entry(3, T[3])), iter(checkpoints)) == []


def test_of_one_step_only_the_newest_goes_and_replaces_what_arrived_before() -> None:
    pending, evaluated = ("checkpoint-5-pending", 5, T[5]), ("checkpoint-5", 5, T[6])
    assert behind(Arrived(), [pending]) == ["checkpoint-5-pending"]
    assert behind(Arrived(), [pending, evaluated]) == ["checkpoint-5"]
    arrived = there(entry(5, T[5], "checkpoint-5-pending"))
    assert behind(arrived, [pending]) == []
    assert behind(arrived, [pending, evaluated]) == ["checkpoint-5"], "it takes the place of the one without its evaluation"
    assert behind(there(entry(5, T[6])), [pending, evaluated]) == []


def test_a_checkpoint_of_the_same_name_saved_again_is_another_one() -> None:
    assert behind(there(entry(4, T[4])), [("checkpoint-4", 4, T[9])]) == ["checkpoint-4"]


def test_what_retention_took_here_or_there_is_not_behind() -> None:
    local = [(f"checkpoint-{step}", step, T[step]) for step in (1, 2, 3, 4)]
    arrived = there(entry(2, T[2]), entry(4, T[4]))  # 2 is the best one
    assert behind(arrived, local[3:]) == [], "deleted here"
    assert behind(arrived, local) == ["checkpoint-1", "checkpoint-3"]
    assert behind(arrived, local, keep_last_n=1) == [], "deleted there"
    assert behind(arrived, local, keep_last_n=2) == ["checkpoint-3"]
    assert behind(there(), local, keep_last_n=1) == [f"checkpoint-{step}" for step in (1, 2, 3, 4)]


def test_a_new_line_of_the_run_is_behind_although_higher_steps_of_the_old_one_are_there() -> None:
    arrived = there(entry(6, T[6]))
    assert behind(arrived, [("checkpoint-3", 3, T[3]), ("checkpoint-4", 4, T[9])], keep_last_n=1) == ["checkpoint-4"]


def test_a_destination_and_what_arrived_are_read_as_they_were_written(outbox: Outbox) -> None:
    assert outbox.destination() is None
    destination = Destination("owner/name", private=False, keep_last_n=3, push_base=True, username="owner")
    outbox.open(destination)
    assert outbox.destination() == destination
    assert outbox.arrived().pushed == {}
    arrived = Arrived("0" * 32, "owner/name", "a" * 40, {"checkpoint-1": entry(1, T[1])}, "checkpoint-1", "d" * 64, True, "c" * 40,
                      True, "no room", (1.0, 2.5))  # fmt: skip
    outbox.record(arrived)
    assert outbox.arrived() == arrived
    outbox.close()
    outbox.close()
    assert outbox.destination() is None
    assert outbox.arrived() == arrived


@pytest.mark.parametrize(
    "change",
    [
        {"uid": 5}, {"repo": 5}, {"head": []}, {"pushed": []}, {"pushed": {"checkpoint-1": 5}}, {"pushed": {"checkpoint-1": {}}},
        {"root": 1}, {"base": 1}, {"finished": 1}, {"card": 1}, {"curve": None}, {"problem": 1}, {"commits_at": 5},
        {"commits_at": ["soon"]}, {"commits_at": [None]}, {"format_version": 2}, {"format_version": None},
        *({"pushed": {"checkpoint-1": {**entry(1, T[1]), key: value}}}
          for key, value in [("saved_at", [T[1]]), ("saved_at", "yesterday"), ("name", ["checkpoint-1"]), ("step", "1"),
                             ("metrics", [1]), ("size", 1.5), ("more", 1)]),
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_state_is_an_error_when_it_is_read(outbox: Outbox, change: dict[str, Any]) -> None:
    outbox.record(there(entry(1, T[1])))
    path = outbox.directory / "state.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(CheckpointError, match=r"state\.json") as raised:
        outbox.arrived()
    assert raised.value.hint


@pytest.mark.parametrize("key", ["uid", "pushed", "commits_at", "finished", "problem", "format_version"])
def test_a_state_that_lacks_something_is_damaged(outbox: Outbox, key: str) -> None:
    outbox.record(Arrived())
    path = outbox.directory / "state.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        outbox.arrived()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "\x00\xff", "[" * 100_000])
@pytest.mark.parametrize("name", ["state.json", "outbox.json"])
def test_what_is_no_json_object_is_damaged(outbox: Outbox, name: str, text: str) -> None:
    outbox.open(Destination())
    (outbox.directory / name).write_text(text)
    with pytest.raises(CheckpointError, match=name):
        outbox.arrived() if name == "state.json" else outbox.destination()


@pytest.mark.parametrize(
    "change", [{"repo": 5}, {"private": "yes"}, {"keep_last_n": 1.5}, {"keep_last_n": True}, {"push_base": None}]
)
def test_a_damaged_destination_is_an_error(outbox: Outbox, change: dict[str, Any]) -> None:
    outbox.open(Destination())
    path = outbox.directory / "outbox.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=r"outbox\.json"):
        outbox.destination()


def test_with_the_state_lost_the_repository_tells_the_same_and_nothing_is_pushed_twice(tmp_path: Path) -> None:
    run, hub = new_run(tmp_path), FakeHub()
    push_all(uploader(run, hub), finished=True)
    before, state = hub.histories["tester/a-run"], run.path / "hub/state.json"
    known = json.loads(state.read_text())
    state.unlink()
    again = uploader(run, hub)
    assert len(again.waiting()) == 3
    assert push_all(again, finished=True) == []
    assert hub.histories == {"tester/a-run": before}
    found = json.loads(state.read_text())
    assert {**found, "commits_at": known["commits_at"]} == known


def test_only_one_process_pushes_a_run(outbox: Outbox) -> None:
    with outbox.alone():
        assert outbox.is_busy()
        with pytest.raises(RunError), Outbox(outbox.directory.parent).alone():
            pass
    assert not outbox.is_busy()


FIRST, SECOND = ("checkpoint-1", 1, "2026-01-01T12:00:01+00:00"), ("checkpoint-2", 2, "2026-01-01T12:00:02+00:00")
PUSHED = {
    "checkpoint-1": {
        "name": "checkpoint-1", "step": 1, "epoch": 0.1, "saved_at": FIRST[2], "metrics": {}, "size": 1, "manifest_sha256": "0" * 64,
    }
}  # fmt: skip


def test_a_run_that_is_not_pushed_has_no_standing(tmp_path: Path) -> None:
    assert standing(tmp_path, [FIRST]) is None


def test_a_run_is_behind_until_every_checkpoint_has_arrived(tmp_path: Path, outbox: Outbox) -> None:
    outbox.open(Destination(repo="user/a"))
    before = standing(tmp_path, [FIRST])
    assert before is not None
    assert (before.repo, before.state, before.waiting, before.behind) == ("user/a", BEHIND, ("checkpoint-1",), 1)
    outbox.record(Arrived(repo="user/a-2", pushed=PUSHED))
    after = standing(tmp_path, [FIRST])
    assert after is not None
    assert after.as_dict() == {"repo": "user/a-2", "state": IN_STEP, "behind": 0, "problem": None}
    later = standing(tmp_path, [FIRST, SECOND])
    assert later is not None and later.waiting == ("checkpoint-2",)


def test_what_stopped_the_push_and_damaged_records_are_problems(tmp_path: Path, outbox: Outbox) -> None:
    outbox.open(Destination(repo="user/a"))
    outbox.record(Arrived(repo="user/a", problem="no write access"))
    stopped = standing(tmp_path, [FIRST])
    assert stopped is not None and (stopped.state, stopped.problem, stopped.behind) == (FAILED, "no write access", 1)
    (outbox.directory / "state.json").write_text("{")
    lost = standing(tmp_path, [FIRST])
    assert lost is not None and (lost.state, lost.behind, lost.problem) == (FAILED, None, "hub/state.json is damaged")
    (outbox.directory / "outbox.json").write_text("[]")
    unknown = standing(tmp_path, [FIRST])
    assert unknown is not None and (unknown.repo, unknown.problem) == (None, "hub/outbox.json is damaged")
