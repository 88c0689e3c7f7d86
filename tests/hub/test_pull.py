"""A run comes back from the Hub whole, by one commit, and a pull that was cut goes on."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.hub import pull as pulling
from pitstop.checkpointing.hub.client import NotThere, Offline, Unavailable
from pitstop.checkpointing.hub.pull import Pulled, pull
from pitstop.checkpointing.hub.remote_repository import Patience, RemoteRepository
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.checkpointing.runs.verification import Verifier
from pitstop.configs.errors import HubError, ResourceError, RunError
from support.forging import CONFIG
from support.repositories import BASE_DIGEST, REPO, UID, FakeHub, Files, repository
from support.stores import ForgetfulStorage, in_child


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return repository(tmp_path / "pushed")


@pytest.fixture
def with_base(tmp_path: Path) -> Files:
    return repository(tmp_path / "pushed", base=True)


def pulled(hub: FakeHub, base: Path, *more: Any, **options: Any) -> Pulled:
    reading = {key: options.pop(key) for key in ("tell", "patience") if key in options}
    return pull(RemoteRepository(hub, REPO, **reading), base, *more, **{"storage": ForgetfulStorage(), **options})


def nothing_left(base: Path) -> bool:
    return [path.name for path in base.iterdir() if path.name.startswith(".tmp-")] == []


def test_a_run_comes_back_with_its_newest_checkpoint_byte_for_byte(files: Files, base: Path) -> None:
    run = pulled(FakeHub(files), base).run
    assert run.path == base / "run_001"
    assert run.store.names() == ["checkpoint-6"]
    for path in (run.path / "lora_weights/checkpoint-6").iterdir():
        assert path.read_bytes() == files[f"checkpoint-6/{path.name}"]
    assert (run.path / "config.json").read_bytes() == files["run/config.json"]
    assert [part.problem for part in Verifier().run(run) if part.problem] == []
    assert (run.store.pointer("last"), run.store.pointer("best")) == ("checkpoint-6", "checkpoint-6")
    assert nothing_left(base)


def test_what_is_on_record_is_that_of_a_run_which_stopped_at_the_checkpoint(files: Files, base: Path) -> None:
    metadata = pulled(FakeHub(files), base, "3").run.metadata().content
    assert metadata["status"] == "interrupted"
    assert metadata["progress"] == {"step": 3, "total_steps": 12, "epoch": 0.5, "total_epochs": 1}
    assert metadata["checkpoints"] == [
        {
            "name": "checkpoint-3",
            "epoch": 0.5,
            "step": 3,
            "path": "run_001/lora_weights/checkpoint-3",
            "metrics": {"val_loss": 0.5},
            "saved_at": "2026-01-01T12:03:00+00:00",
            "size": metadata["checkpoints"][0]["size"],
        }
    ]
    assert metadata["best_checkpoint"]["name"] == "checkpoint-3"
    assert metadata["best_checkpoint"]["value"] == 0.5
    assert metadata["created_at"] == "2026-01-01T12:00:00+00:00"
    assert datetime.fromisoformat(metadata["updated_at"]).year > 2025
    assert metadata["base_model"] == {"id": "owner/name", "digest": BASE_DIGEST, "saved": False}
    record = list_runs(base)[0]
    assert (record.name, record.status, record.step, record.checkpoints) == ("a-run", "interrupted", 3, 1)
    assert locate(base, "a-run")[0].path == base / "run_001"


def test_the_log_ends_at_the_checkpoint(files: Files, base: Path) -> None:
    run = pulled(FakeHub(files), base, "checkpoint-3").run
    assert run.metrics_path.read_bytes() == b"".join(files["run/metrics.jsonl"].splitlines(keepends=True)[:3])


def test_a_run_that_has_logged_nothing_comes_back_too(tmp_path: Path, files: Files, base: Path) -> None:
    from support.repositories import forge

    del files["run/metrics.jsonl"]
    forge(files, "run/RUN.json", lambda content: content["files"].pop("metrics.jsonl"))
    assert pulled(FakeHub(files), base).run.metrics_path.read_bytes() == b""


def test_a_resume_goes_on_in_the_same_repository(files: Files, base: Path) -> None:
    hub = FakeHub(files)
    outbox = Outbox(pulled(hub, base).run.path)
    assert outbox.destination() == Destination(repo=REPO, push_base=False)
    arrived = outbox.arrived()
    assert (arrived.uid, arrived.repo, arrived.head) == (UID, REPO, hub.commit)
    assert (arrived.root, arrived.base, arrived.finished) == ("checkpoint-6", None, False)
    listed = json.loads(files["run/RUN.json"])["checkpoints"]
    assert arrived.pushed == listed and set(listed) == {"checkpoint-3", "checkpoint-6"}


@pytest.mark.parametrize(
    ("which", "name"),
    [("last", "checkpoint-9"), ("best", "epoch_001"), ("epoch_001", "epoch_001"), ("epoch_1", "epoch_001"),
     ("checkpoint-6", "epoch_001"), ("6", "epoch_001"), ("checkpoint-3", "checkpoint-3")],
)  # fmt: skip
def test_a_checkpoint_is_chosen_by_any_of_its_names(which: str, name: str, tmp_path: Path, base: Path) -> None:
    files = repository(tmp_path / "pushed", {3: 0.5, 6: 0.1, 9: 0.3}, names={6: "epoch_001"})
    result = pulled(FakeHub(files), base, which)
    assert result.checkpoint.name == name
    assert result.run.store.names() == [name]


def test_the_best_is_judged_by_the_runs_own_metric(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = CONFIG["training"]
    monkeypatch.setitem(CONFIG, "training", {**training, "checkpoint": {**training["checkpoint"], "mode": "max"}})
    assert pulled(FakeHub(repository(tmp_path / "pushed", {3: 0.5, 6: 0.1})), base, "best").checkpoint.name == "checkpoint-3"


def test_a_checkpoint_that_is_not_there_is_said_with_those_that_are(files: Files, base: Path) -> None:
    with pytest.raises(NotThere, match="no checkpoint 'epoch_003'") as caught:
        pulled(FakeHub(files), base, "epoch_003")
    assert caught.value.exit_code == 5 and caught.value.hint == "there: checkpoint-3, checkpoint-6"
    with pytest.raises(NotThere, match="no checkpoint 'last'"):
        pulled(FakeHub(repository(base.parent / "empty", {})), base)
    assert list_runs(base) == []


def test_only_the_chosen_checkpoint_is_fetched(files: Files, base: Path) -> None:
    hub = FakeHub(files)
    pulled(hub, base, "checkpoint-3")
    assert not [name for name in hub.downloads if name.startswith("checkpoint-6/") or "/" not in name]


def test_all_is_private(files: Files, base: Path) -> None:
    old = os.umask(0)
    try:
        run = pulled(FakeHub(files), base).run
    finally:
        os.umask(old)
    for path in [run.path, *run.path.rglob("*")]:
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# Numbers and names


def test_it_takes_the_next_free_number_and_a_free_name(files: Files, base: Path) -> None:
    create_run(base, name="a-run", config={}, metadata={}, number=3, storage=ForgetfulStorage())
    run = pulled(FakeHub(files), base).run
    assert (run.number, run.name) == (4, "a-run-2")
    assert locate(base, "a-run-2")[0].path == run.path and locate(base, "a-run")[0].number == 3


def test_it_takes_the_number_that_is_given(files: Files, base: Path) -> None:
    assert pulled(FakeHub(files), base, number=7).run.path == base / "run_007"


def test_a_taken_number_is_refused_before_a_checkpoint_is_fetched(files: Files, base: Path) -> None:
    create_run(base, name="other", config={}, metadata={}, storage=ForgetfulStorage())
    hub = FakeHub(files)
    with pytest.raises(RunError, match="run 1 exists"):
        pulled(hub, base, number=1)
    # The run's own settings tell among which runs it would stand.
    assert all(name.startswith("run/") for name in hub.downloads)
    assert pulled(FakeHub(files), base).run.number == 2 and nothing_left(base)  # what was fetched is kept for the next try


def test_a_repository_is_pulled_once(files: Files, base: Path) -> None:
    pulled(FakeHub(files), base)
    hub = FakeHub(files)
    with pytest.raises(RunError, match=r"run_001 \(a-run\) is the run of owner/a-run already") as caught:
        pulled(hub, base)
    assert "pitstop resume 1" in str(caught.value.hint)
    assert hub.downloads == []


def test_a_renamed_repository_is_known_by_its_inventory(files: Files, base: Path) -> None:
    pulled(FakeHub(files), base)
    with pytest.raises(RunError, match="run_001"):
        pull(RemoteRepository(FakeHub(files, repo="owner/renamed"), "owner/renamed"), base, storage=ForgetfulStorage())
    assert len(list_runs(base)) == 1


def test_of_two_processes_that_pull_the_same_one_installs_it(files: Files, base: Path) -> None:
    """The second one reads the list of runs before the first one is done, and comes to its end after it."""
    base.mkdir()
    ready, go = base.parent / "ready", base.parent / "go"

    def wait(what: str) -> None:
        if what == "checkpoint-6/optimizer.json":
            ready.touch()
            while not go.exists():
                pass

    hub = FakeHub(files, commit="f" * 40, before=wait)
    child = os.fork()
    if child == 0:
        os._exit(in_child(lambda: _refused(hub, base)))
    while not ready.exists():
        pass
    pulled(FakeHub(files), base)
    go.touch()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [record.run for record in list_runs(base)] == ["run_001"]
    assert [path.name for path in (base / "by-name").iterdir() if path.name != layout.LOCK] == ["a-run"]


def _refused(hub: FakeHub, base: Path) -> None:
    with pytest.raises(RunError, match="already"):
        pulled(hub, base)


def test_two_processes_do_not_fetch_into_one_place(files: Files, base: Path) -> None:
    place = base / f".tmp-pull-owner--a-run-{FakeHub(files).commit[:12]}"
    place.mkdir(parents=True)
    with locking.exclusive(place / ".lock", "test"):
        with pytest.raises(RunError, match="the pull of owner/a-run is in use by process"):
            pulled(FakeHub(files), base)
        assert place.exists() and list_runs(base) == []


def test_runs_that_start_meanwhile_never_share_a_number_or_a_name(tmp_path: Path, base: Path) -> None:
    base.mkdir()
    repositories = [repository(tmp_path / str(number)) for number in range(3)]

    def body(number: int) -> None:
        if number < 3:
            from support.repositories import forge

            forge(repositories[number], "run/RUN.json", lambda content: content.update(uid=f"{number:032x}"))
            repo = f"owner/run-{number}"
            pull(RemoteRepository(FakeHub(repositories[number], repo=repo), repo), base, storage=ForgetfulStorage())
        else:
            for _ in range(10):
                create_run(base, name="a-run", config={}, metadata={}, storage=ForgetfulStorage())

    children = []
    for number in range(5):
        child = os.fork()
        if child == 0:
            os._exit(in_child(lambda number=number: body(number)))  # type: ignore[misc]
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 5
    records = list_runs(base)
    assert [record.run_number for record in records] == list(range(1, 24))
    assert len({record.name for record in records}) == 23
    for record in records:
        assert locate(base, record.name)[0].label == record.run


# The base model


def test_a_pushed_base_comes_along_in_the_run_alone(with_base: Files, base: Path) -> None:
    result = pulled(FakeHub(with_base), base)
    assert result.base
    models = BaseModels(base)
    place = models.base_path(result.run.path, BASE_DIGEST)
    assert (place / "model.safetensors").read_bytes() == b"weights of the base"
    assert result.run.metadata().base_model.saved is True
    assert models.digests() == [], "what somebody pushed must not become the base of other runs"
    assert Outbox(result.run.path).destination() == Destination(repo=REPO, push_base=True)


def test_a_base_that_is_here_is_taken_and_not_fetched(with_base: Files, base: Path) -> None:
    models = BaseModels(base, ForgetfulStorage())
    models.save_once(BASE_DIGEST, lambda place: (place / "model.safetensors").write_bytes(b"our own") and None)
    hub = FakeHub(with_base)
    run = pulled(hub, base).run
    assert [name for name in hub.downloads if name.startswith("base/")] == ["base/BASE_MANIFEST.json"]
    assert (run.path / "base_model/model.safetensors").samefile(models.path(BASE_DIGEST) / "model.safetensors")
    assert run.metadata().base_model.saved is True


def test_a_damaged_base_here_is_not_taken(with_base: Files, base: Path) -> None:
    models = BaseModels(base, ForgetfulStorage())
    models.save_once(BASE_DIGEST, lambda place: (place / "model.safetensors").write_bytes(b"our own") and None)
    (models.path(BASE_DIGEST) / "model.safetensors").write_bytes(b"our 0wn")
    run = pulled(FakeHub(with_base), base).run
    assert (models.base_path(run.path, BASE_DIGEST) / "model.safetensors").read_bytes() == b"weights of the base"


# The Hub fails


def fails(times: int, error: Callable[[], Exception], at: str = "") -> Callable[[str], None]:
    left = [times]

    def before(what: str) -> None:
        if what.startswith(at) and left[0] > 0:
            left[0] -= 1
            raise error()

    return before


@pytest.mark.parametrize("at", ["head", "files", "run/RUN.json", "checkpoint-6/rng_state_0.json"])
def test_a_hub_that_fails_for_a_while_is_waited_for(at: str, files: Files, base: Path) -> None:
    waits: list[float] = []
    said: list[str] = []
    hub = FakeHub(files, before=fails(4, lambda: Unavailable("the Hub answered 503"), at))
    pulled(hub, base, patience=Patience(sleep=waits.append), tell=said.append)
    assert waits == [2, 4, 8, 16]
    assert next(line for line in said if "503" in line) == "the Hub fails (the Hub answered 503); next try in 2 s"


def test_the_hub_says_how_long_to_wait(files: Files, base: Path) -> None:
    waits: list[float] = []
    pulled(FakeHub(files, before=fails(1, lambda: Unavailable("429", 55))), base, patience=Patience(sleep=waits.append))
    assert waits == [55]


def test_a_hub_that_stays_away_is_given_up_and_what_was_fetched_is_kept(files: Files, base: Path) -> None:
    waits: list[float] = []
    away = FakeHub(files, before=fails(10**6, lambda: Unavailable("ConnectError: refused"), "checkpoint-6/rng_state_0.json"))
    with pytest.raises(HubError, match="ConnectError") as caught:
        pulled(away, base, patience=Patience(sleep=waits.append))
    assert caught.value.exit_code == 5 and "goes on from there" in str(caught.value.hint)
    assert 100 < sum(waits) <= 180
    assert list_runs(base) == []
    again = FakeHub(files)
    pulled(again, base)
    assert set(again.downloads) & set(away.downloads) == {"run/RUN.json"}
    assert "checkpoint-6/rng_state_0.json" in again.downloads


def test_a_file_that_a_cut_left_half_is_fetched_anew(files: Files, base: Path) -> None:
    hub = FakeHub(files, before=fails(1, KeyboardInterrupt, "checkpoint-6/rng_state_0.json"))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        pulled(hub, base)
    place = next(base.glob(".tmp-pull-*/files/checkpoint-6"))
    (place / "optimizer.safetensors").write_bytes(b"half")
    (place / "optimizer.json").write_bytes(files["checkpoint-6/optimizer.json"].swapcase())
    again = FakeHub(files)
    run = pulled(again, base).run
    assert {"checkpoint-6/optimizer.safetensors", "checkpoint-6/optimizer.json"} <= set(again.downloads)
    assert run.store.verify("last").name == "checkpoint-6"


def test_a_file_that_the_line_garbles_is_fetched_again(files: Files, base: Path) -> None:
    good = files["checkpoint-6/optimizer.safetensors"]
    seen: list[str] = []

    def garble(what: str) -> None:
        seen.append(what)
        bad = seen.count("checkpoint-6/optimizer.safetensors") == 1
        hub.sent["checkpoint-6/optimizer.safetensors"] = good[::-1] if bad else good

    hub = FakeHub(files, before=garble)
    pulled(hub, base)
    assert hub.downloads.count("checkpoint-6/optimizer.safetensors") == 2
    assert len(hub.downloads) == len(set(hub.downloads)) + 1


def test_offline_is_said_at_once(files: Files, base: Path) -> None:
    waits: list[float] = []
    hub = FakeHub(files, before=fails(1, lambda: Offline("HF_HUB_OFFLINE is set")))
    with pytest.raises(HubError, match="HF_HUB_OFFLINE") as caught:
        pulled(hub, base, patience=Patience(sleep=waits.append))
    assert "unset it" in str(caught.value.hint) and waits == []


def test_a_full_disk_is_no_hub_that_fails(files: Files, base: Path) -> None:
    def full() -> Exception:
        error = Unavailable("No space left on device")
        error.__cause__ = OSError(28, "No space left on device")
        return error

    with pytest.raises(ResourceError, match="disk is full"):
        pulled(FakeHub(files, before=fails(1, full, "run/")), base)


def test_room_is_looked_for_before_the_checkpoint_is_fetched(files: Files, base: Path) -> None:
    class Small(ForgetfulStorage):
        def free_space(self, path: Path) -> int:
            return pulling.RESERVE_BYTES + 100

    hub = FakeHub(files)
    with pytest.raises(ResourceError, match="are free") as caught:
        pulled(hub, base, storage=Small())
    assert caught.value.exit_code == 6
    assert [name for name in hub.downloads if name.startswith("checkpoint-")] == ["checkpoint-6/MANIFEST.json"]


def test_what_is_going_on_is_said(with_base: Files, base: Path) -> None:
    said: list[str] = []
    pulled(FakeHub(with_base), base, tell=said.append)
    assert said[0].startswith("Pulling a-run from owner/a-run at 012345678901: checkpoint-6, ")
    assert said[1].startswith("fetched and verified checkpoint-6 (6 files, ")
    assert said[2].startswith("fetched and verified the base model (2 files, ")
