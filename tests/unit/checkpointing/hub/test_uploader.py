from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.hub.client import Conflict, Refused, Unavailable
from pitstop.checkpointing.hub.uploader import Spoilt
from pitstop.checkpointing.runs.inventory import INVENTORY, Inventory
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError
from support.fake_hub import REPO, Clock, FakeHub, Nth, add, lost, new_run, push_all, raising, send_to, uploader

pytestmark = pytest.mark.usefixtures("undrawn")

FOREIGN = {INVENTORY: Inventory("f" * 32, "a-run").to_bytes("0.1.0"), "checkpoint-1/x": b"theirs"}
ONE_EACH = ["a-run: checkpoint of step 1", "a-run: checkpoint of step 2", "a-run: checkpoint of step 3"]


def test_a_run_gets_a_private_repository_of_its_name_and_each_checkpoint_a_commit(run: RunDirectory, hub: FakeHub) -> None:
    pusher = uploader(run, hub)
    assert push_all(pusher) == [("checkpoint-1",), ("checkpoint-2",), ("checkpoint-3",)]
    assert hub.private == {REPO: True}
    assert hub.titles() == ONE_EACH
    assert hub.steps() == [1, 2, 3]
    for path in (run.path / "lora_weights").glob("checkpoint-*/*"):
        assert hub.tree()[f"{path.parent.name}/{path.name}"] == path.read_bytes()
    assert pusher.is_done(finished=False)
    assert not pusher.is_done(finished=True)
    assert push_all(pusher, finished=True) == [()]
    assert pusher.is_done(finished=True)
    assert hub.tree()["adapter_model.safetensors"] == b"adapter of step 2, line 0"


def test_the_end_of_training_goes_with_the_last_checkpoint(run: RunDirectory, hub: FakeHub) -> None:
    assert push_all(uploader(run, hub), finished=True) == [("checkpoint-1",), ("checkpoint-2",), ("checkpoint-3",)]
    inventories = [Inventory.from_bytes(made.files[INVENTORY], made.title) for made in hub.histories[REPO][1:]]
    assert [inventory.finished for inventory in inventories] == [False, False, True]
    assert hub.inventory().root == "checkpoint-2"


def test_the_account_of_the_settings_and_their_privacy_are_used(run: RunDirectory, hub: FakeHub) -> None:
    send_to(run, username="team", private=False)
    push_all(uploader(run, hub))
    assert hub.private == {"team/a-run": False}
    assert "account" not in hub.calls


@pytest.mark.parametrize(
    "theirs", [FOREIGN, {"model.safetensors": b"a model"}, {INVENTORY: b"{}"}], ids=["a run", "a model", "another tool's"]
)
def test_a_repository_that_holds_something_else_is_left_alone(run: RunDirectory, hub: FakeHub, theirs: dict[str, bytes]) -> None:
    hub.put(REPO, theirs)
    push_all(uploader(run, hub))
    assert hub.tree(REPO) == theirs
    assert hub.steps(f"{REPO}-2") == [1, 2, 3]


def test_a_taken_repository_that_was_asked_for_is_refused(run: RunDirectory, hub: FakeHub) -> None:
    hub.put("team/mine", FOREIGN)
    send_to(run, repo="team/mine")
    with pytest.raises(Refused, match="team/mine is taken") as raised:
        uploader(run, hub).prepare()
    assert "--hub-repo" in str(raised.value.hint)
    assert hub.titles("team/mine") == []


def test_a_repository_made_empty_beforehand_is_used(run: RunDirectory, hub: FakeHub) -> None:
    hub.put("team/mine", {".gitattributes": b"", "README.md": b"soon", "LICENSE": b"MIT"})
    send_to(run, repo="team/mine")
    push_all(uploader(run, hub))
    assert hub.steps("team/mine") == [1, 2, 3]
    assert hub.tree("team/mine")["LICENSE"] == b"MIT"


def test_when_fifty_names_are_taken_it_says_so(run: RunDirectory, hub: FakeHub) -> None:
    for repo in [REPO, *(f"{REPO}-{number}" for number in range(2, 60))]:
        hub.put(repo, FOREIGN)
    with pytest.raises(Refused, match="50 repositories"):
        uploader(run, hub).prepare()


def test_another_process_goes_on_without_asking_twice(run: RunDirectory, hub: FakeHub) -> None:
    uploader(run, hub).push_next(finished=False)
    hub.calls.clear()
    assert push_all(uploader(run, hub)) == [("checkpoint-2",), ("checkpoint-3",)]
    assert hub.titles() == ONE_EACH
    assert hub.calls == ["head", "upload", "commit", "upload", "commit"]


def test_a_repository_deleted_meanwhile_is_made_again_and_filled(run: RunDirectory, hub: FakeHub) -> None:
    push_all(uploader(run, hub), finished=True)
    hub.histories.clear()
    assert push_all(uploader(run, hub), finished=True) == [("checkpoint-1",), ("checkpoint-2",), ("checkpoint-3",)]
    assert hub.steps() == [1, 2, 3]
    assert hub.tree()["adapter_model.safetensors"] == b"adapter of step 2, line 0"
    assert "README.md" in hub.tree()


@pytest.mark.parametrize("call", ["create", "upload", "commit"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_lost_answer_makes_no_second_commit(run: RunDirectory, hub: FakeHub, call: str, number: int) -> None:
    hub.after = lost(call, number)
    pusher = uploader(run, hub)
    failures = 0
    while not pusher.is_done(finished=True):
        try:
            pusher.push_next(finished=True)
        except Unavailable:
            failures += 1
    assert failures == (number == 1 or call != "create")
    assert hub.titles() == ONE_EACH
    assert hub.inventory().root == "checkpoint-2"
    assert list(hub.histories) == [REPO]
    add(run, 4, 0.05)
    push_all(uploader(run, hub))
    assert b"checkpoint-4" in hub.tree()["README.md"], "the card is still ours to renew"


def test_a_lost_answer_of_the_end_of_training_leaves_the_card_to_us(run: RunDirectory, hub: FakeHub) -> None:
    """The adapter at the root is the best one before and after."""
    add(run, 4, 0.01)
    pusher = uploader(run, hub)
    push_all(pusher)
    assert hub.inventory().root == "checkpoint-4"
    hub.after = lost("commit")
    with pytest.raises(Unavailable):
        pusher.push_next(finished=True)
    assert push_all(pusher, finished=True) == []
    assert pusher.arrived.card != ""


@pytest.mark.parametrize("call", range(1, 25))
def test_whatever_call_fails_the_next_process_goes_on_where_it_ended(run: RunDirectory, hub: FakeHub, call: int) -> None:
    hub.before = Nth(None, call, raising(Unavailable("503")))
    for _ in range(2):
        try:
            push_all(uploader(run, hub), finished=True)
        except Unavailable:
            continue
    assert hub.titles() == ONE_EACH


def test_a_commit_of_somebody_else_is_built_upon(run: RunDirectory, hub: FakeHub) -> None:
    pusher = uploader(run, hub)
    pusher.push_next(finished=False)
    hub.change(REPO, notes_txt=b"by hand")
    with pytest.raises(Conflict):
        pusher.push_next(finished=False)
    push_all(pusher)
    assert hub.titles() == [ONE_EACH[0], "by hand", *ONE_EACH[1:]]
    assert hub.tree()["notes.txt"] == b"by hand"


def test_an_edited_model_card_is_left_alone_from_then_on(run: RunDirectory, hub: FakeHub) -> None:
    pusher = uploader(run, hub)
    pusher.push_next(finished=False)
    hub.change(REPO, README_md=b"my own words")
    with pytest.raises(Conflict):
        pusher.push_next(finished=False)
    pusher.push_next(finished=False)
    assert hub.tree()["README.md"] == b"my own words"
    push_all(uploader(run, hub), finished=True)
    assert hub.tree()["README.md"] == b"my own words"
    assert hub.inventory().finished


def test_another_repository_given_later_is_pushed_to_from_the_start(run: RunDirectory, hub: FakeHub) -> None:
    pusher = uploader(run, hub)
    push_all(pusher, finished=True)
    before = list(hub.histories[REPO])
    send_to(run, repo="team/other")
    assert push_all(pusher, finished=True) == [("checkpoint-1",), ("checkpoint-2",), ("checkpoint-3",)]
    assert hub.histories[REPO] == before
    assert hub.steps("team/other") == [1, 2, 3]
    assert hub.tree("team/other")["README.md"].count(b"team/other") > 0
    assert uploader(run, hub).arrived.repo == "team/other"
    send_to(run, repo=REPO)
    assert push_all(uploader(run, hub), finished=True) == [], "what it holds is known again"
    assert hub.histories[REPO] == before


def test_a_second_repository_that_is_taken_leaves_the_records_of_the_first(run: RunDirectory, hub: FakeHub) -> None:
    push_all(uploader(run, hub))
    hub.put("team/other", FOREIGN)
    send_to(run, repo="team/other")
    with pytest.raises(Refused):
        uploader(run, hub).push_next(finished=False)
    assert uploader(run, hub).arrived.repo == REPO


def test_two_machines_that_pick_one_name_at_once_end_in_two_repositories(run: RunDirectory, hub: FakeHub, tmp_path: Path) -> None:
    other = new_run(tmp_path / "other machine", {1: 0.5, 2: 0.4})
    one, two = uploader(run, hub), uploader(other, hub)
    assert one.prepare() == two.prepare() == REPO, "both found it empty"
    push_all(one)
    with pytest.raises(Conflict):
        two.push_next(finished=False)
    push_all(two)
    assert (hub.steps(REPO), hub.steps(f"{REPO}-2")) == ([1, 2, 3], [1, 2])
    assert len(hub.titles(REPO)) == 3


def test_a_repository_that_another_run_has_taken_over_is_refused(run: RunDirectory, hub: FakeHub) -> None:
    pusher = uploader(run, hub)
    pusher.push_next(finished=False)
    hub.put(REPO, FOREIGN)
    with pytest.raises(Conflict):
        pusher.push_next(finished=False)
    with pytest.raises(Refused, match="holds another run by now"):
        pusher.push_next(finished=False)
    assert hub.tree(REPO) == FOREIGN


def test_a_changed_byte_is_named_not_pushed_and_keeps_no_other_back(run: RunDirectory, hub: FakeHub) -> None:
    path = run.path / "lora_weights/checkpoint-2/optimizer.safetensors"
    path.chmod(0o600)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    pusher = uploader(run, hub)
    assert pusher.push_next(finished=False)
    with pytest.raises(Spoilt, match=r"checkpoint-2.*optimizer\.safetensors") as raised:
        pusher.push_next(finished=False)
    assert isinstance(raised.value, CheckpointError)
    assert hub.steps() == [1]
    assert push_all(pusher) == [("checkpoint-3",)]
    assert hub.steps() == [1, 3]
    path.write_bytes(content)
    assert push_all(uploader(run, hub)) == [("checkpoint-2",)], "the next uploader tries again"


def test_what_retention_on_the_hub_takes_is_not_pushed_again(tmp_path: Path, hub: FakeHub) -> None:
    run = new_run(tmp_path, {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.7, 5: 0.6})
    send_to(run, keep_last_n=2)
    assert len(push_all(uploader(run, hub), finished=True)) == 5
    assert hub.steps() == [2, 4, 5]
    (run.path / "hub/state.json").unlink()
    assert push_all(uploader(run, hub), finished=True) == []
    assert len(hub.titles()) == 5


def test_the_line_that_a_resume_left_is_replaced(run: RunDirectory, hub: FakeHub) -> None:
    push_all(uploader(run, hub), finished=True)
    run.record_resume(run.store.resolve("checkpoint-1"), {})
    run.store.supersede(1)
    add(run, 2, 0.3, now=datetime.now(UTC), line=1)
    pusher = uploader(run, hub)
    assert push_all(pusher) == [("checkpoint-2",)]
    assert hub.steps() == [1, 2]
    assert hub.tree()["checkpoint-2/adapter_model.safetensors"] == b"adapter of step 2, line 1"
    assert hub.tree()["adapter_model.safetensors"] == b"adapter of step 2, line 1"
    assert not hub.inventory().finished


def test_many_that_wait_for_a_short_budget_go_together(tmp_path: Path, hub: FakeHub) -> None:
    run = new_run(tmp_path, dict.fromkeys(range(1, 6), 0.5))
    clock = Clock()
    pusher = uploader(run, hub, clock, commits_per_hour=4)
    assert pusher.wait_s() == 0.0
    assert pusher.push_next(finished=False) is not None
    assert hub.titles() == ["a-run: checkpoints of step 1, 2, 3, 4, 5"]
    for step in (6, 7, 8):
        add(run, step, 0.5)
    push_all_names = [pusher.push_next(finished=False)]
    assert push_all_names[0] is not None
    assert push_all_names[0].names == ("checkpoint-6",)
    assert pusher.wait_s() == pytest.approx(1800)
    clock.now += 1800
    assert pusher.wait_s() == 0.0
    done = pusher.push_next(finished=False)
    assert done is not None
    assert done.names == ("checkpoint-7", "checkpoint-8")
    assert pusher.wait_s() == 0.0, "nothing waits"


def test_a_clock_that_was_set_back_holds_nothing_up(tmp_path: Path, hub: FakeHub) -> None:
    run = new_run(tmp_path, dict.fromkeys(range(1, 4), 0.5))
    clock = Clock(1_000_000)
    pusher = uploader(run, hub, clock, commits_per_hour=4)
    pusher.push_next(finished=False)
    pusher.push_next(finished=False)
    clock.now -= 86_400
    wait_s = pusher.wait_s()
    assert 0 < wait_s <= 3600
    clock.now += wait_s
    assert pusher.wait_s() == 0.0


def test_the_loss_is_drawn_at_most_once_a_minute_and_at_the_end(run: RunDirectory, hub: FakeHub) -> None:
    clock = Clock()
    pusher = uploader(run, hub, clock)
    pusher.push_next(finished=False)
    assert "loss_curve.png" not in hub.tree()
    clock.now += 61
    pusher.push_next(finished=False)
    assert "loss_curve.png" in hub.tree()
    hub.change(REPO, loss_curve_png=b"old")
    with pytest.raises(Conflict):
        pusher.push_next(finished=True)
    pusher.push_next(finished=True)
    assert hub.tree()["loss_curve.png"] != b"old"


def test_why_it_stopped_is_on_record_until_it_works_again(run: RunDirectory, hub: FakeHub) -> None:
    pusher = uploader(run, hub)
    pusher.stopped("no room")
    assert uploader(run, hub).arrived.problem == "no room"
    pusher.push_next(finished=False)
    assert uploader(run, hub).arrived.problem is None
    written: list[Any] = []
    pusher._record = written.append  # type: ignore[method-assign]
    pusher.stopped(None)
    assert written == [], "nothing new, nothing written"
