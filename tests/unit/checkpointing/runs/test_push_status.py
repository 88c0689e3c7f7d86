from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.runs.push_records import Arrived, Destination, Outbox
from pitstop.checkpointing.runs.push_status import BEHIND, FAILED, IN_STEP, standing
from support.stores import ForgetfulStorage

FIRST, SECOND = ("checkpoint-1", 1, "2026-01-01T12:00:01+00:00"), ("checkpoint-2", 2, "2026-01-01T12:00:02+00:00")
PUSHED = {
    "checkpoint-1": {
        "name": "checkpoint-1", "step": 1, "epoch": 0.1, "saved_at": FIRST[2], "metrics": {}, "size": 1, "manifest_sha256": "0" * 64,
    }
}  # fmt: skip


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path, ForgetfulStorage())


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
