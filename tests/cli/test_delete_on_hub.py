from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.checkpointing.hub.client import Account, Conflict, HubClient, NotThere, Offline, Refused, RemoteFile, Unavailable
from pitstop.checkpointing.runs.inventory import INVENTORY, Inventory
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.cli.commands import delete as command
from support.cli import Cli
from support.housekeeping import make_run
from support.hub_records import REPO, pushed
from support.stores import ForgetfulStorage, failing

BASE = Path("checkpoints")
HEAD = "a" * 40


class Hub:
    """A Hub that holds one repository, told what to answer."""

    def __init__(self, uid: str) -> None:
        self.files_there: dict[str, bytes] = {INVENTORY: Inventory(uid, "a-run").to_bytes("0.1.0")}
        self.there, self.deleted = True, False
        self.who = Account("user", ("some-org",), True)
        self.fail: dict[str, Callable[[], None]] = {}

    def _asked(self, what: str, repo: str) -> None:
        self.fail.get(what, lambda: None)()
        if not self.there:
            raise NotThere(f"{repo} is not on the Hub")

    def account(self) -> Account:
        self.fail.get("account", lambda: None)()
        return self.who

    def head(self, repo: str) -> str:
        self._asked("head", repo)
        return HEAD

    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]:
        self._asked("files", repo)
        assert commit == HEAD
        return {path: RemoteFile(len(content), "0" * 40, None) for path, content in self.files_there.items()}

    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path:
        self._asked("download", repo)
        assert commit == HEAD
        target = directory / path
        target.parent.mkdir(parents=True)
        target.write_bytes(self.files_there[path])
        return target

    def delete(self, repo: str) -> None:
        self._asked("delete", repo)
        assert Outbox(BASE / "run_001").is_busy(), "no push may begin meanwhile"
        assert runs() == ["run_001"], "the repository goes first"
        self.there, self.deleted = False, True


def runs() -> list[str]:
    return [record.run for record in list_runs(BASE)]


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.fixture
def run() -> RunDirectory:
    run = make_run(BASE)
    pushed(run, "checkpoint-2")
    return run


@pytest.fixture
def hub(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(Outbox(run.path).arrived().uid)
    monkeypatch.setattr(command, "hub_client", lambda env_file: hub)
    return hub


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(env_file: Path | None) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(command, "hub_client", nobody)


def test_the_repository_goes_with_the_run(pitstop: Cli, hub: Hub) -> None:
    result = pitstop("delete", "1", "--hub", "--yes")
    assert result.code == 0
    assert "deleted run_001 (a-run)" in result.stdout
    assert f"its repository {REPO} is deleted on the Hub\n" in result.stdout
    assert (hub.deleted, runs()) == (True, [])


def test_json_says_what_became_of_it(pitstop: Cli, hub: Hub) -> None:
    assert hub.there
    assert pitstop("delete", "1", "--hub", "--dry-run", "--json").json()["hub"] == {
        "repo": REPO,
        "delete": True,
        "deleted": False,
        "was_gone": False,
    }
    content = pitstop("delete", "1", "--hub", "--yes", "--json").json()
    assert content["hub"] == {"repo": REPO, "delete": True, "deleted": True, "was_gone": False}
    assert content["deleted"] is True


@pytest.mark.usefixtures("run", "no_hub")
def test_without_the_option_it_stays_and_that_is_said(pitstop: Cli) -> None:
    line = f"its repository {REPO} stays on the Hub\n"
    assert line in pitstop("delete", "1", "--dry-run").stdout
    assert line in pitstop("delete", "1", "--yes").stdout
    assert runs() == []


@pytest.mark.usefixtures("run", "no_hub")
def test_a_dry_run_deletes_nothing_and_asks_nobody(pitstop: Cli) -> None:
    result = pitstop("delete", "1", "--hub", "--dry-run")
    assert result.code == 0
    assert f"its repository {REPO} would be deleted on the Hub, with its history\n" in result.stdout
    assert runs() == ["run_001"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_asks_once_and_names_the_repository(pitstop: Cli, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    result = pitstop("delete", "1", "--hub")
    assert result.code == 2
    assert f"Delete run_001 and {REPO} on the Hub for good? [y/N]" in result.stderr
    assert (hub.there, runs()) == (True, ["run_001"])
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert pitstop("delete", "1", "--hub").code == 0
    assert (hub.there, runs()) == (False, [])


def test_without_a_terminal_it_must_be_told_yes(pitstop: Cli, hub: Hub) -> None:
    result = pitstop("delete", "1", "--hub")
    assert (result.code, hub.there, runs()) == (2, True, ["run_001"])
    assert "pitstop delete run_001 --hub --yes deletes it without asking" in result.stderr


@pytest.mark.parametrize("step", ["head", "files", "download", "delete"])
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Unavailable("the Hub answered 503"), "the Hub answered 503"),
        (Offline("HF_HUB_OFFLINE is set"), "unset HF_HUB_OFFLINE"),
        (Refused("the token may not write to it", hint="make a token"), "make a token"),
        (Conflict("somebody else was quicker"), "something else writes to the repository"),
    ],
    ids=["unavailable", "offline", "refused", "conflict"],
)
def test_where_the_hub_does_not_do_it_nothing_is_deleted(pitstop: Cli, hub: Hub, step: str, error: Exception, says: str) -> None:
    hub.fail[step] = raising(error)
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, result.stdout) == (5, "")
    assert "run_001 was not deleted, here or on the Hub: " in result.stderr
    assert says in result.stderr
    assert (hub.there, runs()) == (True, ["run_001"])


@pytest.mark.parametrize("who", [Account("user", (), True), Account("someone", ("user",), None)])
def test_a_repository_that_is_gone_already_is_fine(pitstop: Cli, hub: Hub, who: Account) -> None:
    hub.there, hub.who = False, who
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, runs()) == (0, [])
    assert f"its repository {REPO} was gone from the Hub already\n" in result.stdout


def test_one_that_goes_meanwhile_is_fine_too(pitstop: Cli, hub: Hub) -> None:
    def go() -> None:
        hub.there = False

    hub.fail["delete"] = go
    assert pitstop("delete", "1", "--hub", "--yes").code == 0
    assert runs() == []


def test_an_account_that_may_not_see_it_is_not_told_that_it_is_gone(pitstop: Cli, hub: Hub) -> None:
    hub.there, hub.who = False, Account("someone", ("their-org",), True)
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, runs()) == (5, ["run_001"])
    assert f"{REPO} is gone, or someone may not see it" in result.stderr
    hub.fail["account"] = raising(Refused("there is no Hub token"))
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, runs()) == (5, ["run_001"])
    assert "there is no Hub token" in result.stderr


@pytest.mark.parametrize("step", ["files", "download", "delete"])
def test_not_there_for_anything_else_than_the_repository_is_no_reason_to_go_on(pitstop: Cli, hub: Hub, step: str) -> None:
    hub.fail[step] = raising(NotThere("not for you"))
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, hub.there, runs()) == (5, True, ["run_001"])
    assert "not for you" in result.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Inventory("0" * 32, "their-run").to_bytes("0.1.0"), "holds another run (their-run)"),
        (b"{", "not a manifest"),
        (b"x" * (16 * 1024 * 1024 + 1), "holds no record of a run"),
        (None, "holds no record of a run"),
    ],
    ids=["another's", "damaged", "endless", "none"],
)
def test_a_repository_that_is_not_this_runs_is_left_alone(pitstop: Cli, hub: Hub, content: bytes | None, says: str) -> None:
    hub.files_there = {"README.md": b"x"} if content is None else {INVENTORY: content}
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, hub.there, runs()) == (5, True, ["run_001"])
    assert says in result.stderr and "look at https://huggingface.co/user/a-run" in result.stderr


@pytest.mark.usefixtures("no_hub")
def test_a_run_that_was_never_pushed_is_refused(pitstop: Cli) -> None:
    run = make_run(BASE)
    for _ in range(2):
        for more in ("--yes", "--dry-run"):
            result = pitstop("delete", "1", "--hub", more)
            assert (result.code, runs()) == (2, ["run_001"])
            assert "run_001 was never pushed" in result.stderr and "pitstop delete run_001" in result.stderr
        Outbox(run.path, ForgetfulStorage()).open(Destination(REPO))  # it was to be pushed, and was not
    assert "Hub" not in pitstop("delete", "1", "--yes").stdout
    assert runs() == []


@pytest.mark.usefixtures("no_hub")
def test_damaged_records_keep_the_repository_and_not_the_run(pitstop: Cli, run: RunDirectory) -> None:
    (run.path / "hub" / "state.json").write_text("{")
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, runs()) == (4, ["run_001"])
    assert "state.json: damaged" in result.stderr
    assert pitstop("delete", "1", "--yes").code == 0
    assert runs() == []


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("more", [["--hub", "--yes"], ["--yes"], ["--hub", "--dry-run"], ["--hub"]])
def test_a_run_that_is_being_pushed_is_refused(pitstop: Cli, run: RunDirectory, more: list[str]) -> None:
    with Outbox(run.path).alone():
        result = pitstop("delete", "1", *more)
    assert (result.code, result.stdout, runs()) == (2, "", ["run_001"])
    assert "the push of run_001 is in use by process" in result.stderr


@pytest.mark.usefixtures("no_hub")
def test_a_run_in_use_is_refused_before_the_hub_is_asked(pitstop: Cli, run: RunDirectory) -> None:
    with run.lock({"command": "train"}):
        assert pitstop("delete", "1", "--hub", "--yes").code == 2


@pytest.mark.usefixtures("no_hub")
def test_of_a_run_that_is_deleted_already_no_repository_is_known(pitstop: Cli, run: RunDirectory) -> None:
    run.path.rename(BASE / ".trash-run_001-aa")
    result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, "what was known of its repository" in result.stderr) == (2, True)
    assert (BASE / ".trash-run_001-aa").exists()


def test_where_the_disk_refuses_afterwards_it_says_what_is_gone(pitstop: Cli, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "rename", lambda *arguments: failing(5)())
        result = pitstop("delete", "1", "--hub", "--yes")
    assert (result.code, hub.there, runs()) == (6, False, ["run_001"])
    assert f"{REPO} on the Hub is deleted; the run here is not" in result.stderr
    assert pitstop("delete", "1", "--hub", "--yes").code == 0, "again: the repository is gone, which is fine"
    assert runs() == []


def test_the_token_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str | None] = []
    monkeypatch.setattr(HubClient, "__init__", lambda self, token=None: given.append(token))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    command.hub_client(None)
    Path(".env").write_text("HF_TOKEN=hf_from_the_file\n")
    command.hub_client(None)
    Path("other.env").write_text("HF_TOKEN=hf_from_the_other\n")
    command.hub_client(Path("other.env"))
    monkeypatch.setenv("HF_TOKEN", "hf_from_the_environment")
    command.hub_client(None)
    assert given == [None, "hf_from_the_file", "hf_from_the_other", "hf_from_the_environment"]
