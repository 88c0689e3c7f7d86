"""``HubClient`` sorts whatever goes wrong into what to do about it, and waits for nobody."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.hub.client import Account, Conflict, NotThere, Offline, Refused, Unavailable
from pitstop.configs.errors import CheckpointError
from support.hub import Hub
from support.hub.distant import Distant
from support.hub.environment import OTHER, READ, WRITE, environment

CALL = "support.hub.client_calls:call"
UPLOAD, PUSH, LISTING = (f"support.hub.client_calls:{name}" for name in ("upload", "push", "listing"))
REPO = "tester/run"
NOBODY = "f" * 40
FOR_EVER = -1


@pytest.fixture
def hub(emptied_hub: Hub) -> Hub:
    """A hub with one empty repository."""
    emptied_hub.create(REPO)
    return emptied_hub


@pytest.fixture
def client(module_lfs: Distant) -> Distant:
    """For what has nothing to do with how large files travel."""
    return module_lfs


@pytest.fixture
def both(module_distant: Distant) -> Distant:
    """By LFS and by Xet."""
    return module_distant


# -- what it does


def test_the_account_of_a_token(hub: Hub, client: Distant) -> None:
    assert client(CALL, "account") == Account("tester", ("team",), True)
    assert client(CALL, "account", token=READ) == Account("tester", ("team",), False)


def test_create_says_whether_there_was_one(hub: Hub, client: Distant) -> None:
    assert client(CALL, "create", "team/new", private=True) is True
    assert hub.repository("team/new").private
    assert client(CALL, "create", "tester/open", private=False) is True
    assert not hub.repository("tester/open").private
    assert client(CALL, "create", REPO, private=True) is False


def test_what_is_pushed_is_listed_and_downloaded(hub: Hub, both: Distant, tmp_path: Path) -> None:
    large, small = os.urandom(100_000), b"{}"
    (tmp_path / "w.safetensors").write_bytes(large)
    files = {"checkpoint-10/w.safetensors": tmp_path / "w.safetensors", "checkpoint-10/state.json": small}
    commit = both(PUSH, REPO, files, message="step 10")
    assert both(CALL, "head", REPO) == commit == hub.commits(REPO)[0].oid
    listed = both(LISTING, REPO, commit)
    assert listed["checkpoint-10/w.safetensors"][::2] == (100_000, hashlib.sha256(large).hexdigest())
    assert listed["checkpoint-10/state.json"] == (2, "9e26dfeeb6e641a33dae4961196235bdb965b21b", None)  # `git hash-object`
    for path, content in (("checkpoint-10/w.safetensors", large), ("checkpoint-10/state.json", small)):
        assert both(CALL, "download", REPO, path, commit, tmp_path / "pulled").read_bytes() == content


def test_a_commit_adds_and_deletes_at_once(hub: Hub, client: Distant) -> None:
    hub.put(REPO, {"checkpoint-10/a.txt": b"a", "checkpoint-20/a.txt": b"b"})
    client(PUSH, REPO, {"checkpoint-30/a.txt": b"c"}, deletions=["checkpoint-10"])
    assert sorted(hub.tree(REPO)) == [".gitattributes", "checkpoint-20/a.txt", "checkpoint-30/a.txt"]
    assert len(hub.commits(REPO)) == 3


def test_a_directory_that_is_replaced_keeps_nothing_of_the_old_one(hub: Hub, client: Distant) -> None:
    hub.put(REPO, {"checkpoint-10/old.txt": b"a", "checkpoint-10/same.txt": b"same"})
    client(PUSH, REPO, {"checkpoint-10/same.txt": b"same", "checkpoint-10/new.txt": b"b"}, deletions=["checkpoint-10"])
    assert sorted(hub.tree(REPO)) == [".gitattributes", "checkpoint-10/new.txt", "checkpoint-10/same.txt"]


def test_equal_content_is_sent_once_though_it_has_two_paths(hub: Hub, both: Distant, tmp_path: Path) -> None:
    content = os.urandom(400_000)
    (tmp_path / "w.safetensors").write_bytes(content)
    paths = ["adapter_model.safetensors", "checkpoint-10/adapter_model.safetensors", "checkpoint-20/adapter_model.safetensors"]
    both(PUSH, REPO, dict.fromkeys(paths, tmp_path / "w.safetensors"))
    assert all(hub.content(REPO, path) == content for path in paths)
    assert _bytes_sent(hub) < 1.1 * len(content)


def test_content_that_the_hub_has_is_not_sent_again(hub: Hub, both: Distant, tmp_path: Path) -> None:
    content = os.urandom(400_000)
    (tmp_path / "w.safetensors").write_bytes(content)
    both(UPLOAD, REPO, {"checkpoint-10/w.safetensors": tmp_path / "w.safetensors"})
    hub.log.clear()
    both(PUSH, REPO, {"checkpoint-10/w.safetensors": tmp_path / "w.safetensors"})
    assert hub.content(REPO, "checkpoint-10/w.safetensors") == content
    assert _bytes_sent(hub) < 0.1 * len(content)


def test_a_gitignore_in_the_repository_leaves_nothing_out(hub: Hub, client: Distant) -> None:
    # The Hub goes by the .gitignore that it is given, and by that of the repository where it is given none.
    hub.put(REPO, {".gitignore": b"*.bin\n"})
    client(PUSH, REPO, {"checkpoint-10/w.bin": b"weights", "checkpoint-10/a.txt": b"a"})
    assert {"checkpoint-10/w.bin", "checkpoint-10/a.txt"} <= hub.tree(REPO).keys()


def test_a_download_that_was_cut_leaves_nothing_that_could_be_taken_for_the_file(
    hub: Hub, client: Distant, tmp_path: Path
) -> None:
    content = os.urandom(300_000)
    commit = hub.put(REPO, {"w.bin": content}).oid
    hub.fault(method="GET", path="/_lfs/", drop="download", after=200_000)
    with pytest.raises(Unavailable):
        client(CALL, "download", REPO, "w.bin", commit, tmp_path)
    assert not (tmp_path / "w.bin").exists()
    assert client(CALL, "download", REPO, "w.bin", commit, tmp_path).read_bytes() == content


# -- who may not


@pytest.mark.parametrize("method", ["account", "create", "upload", "commit", "delete"])
def test_without_a_token_nothing_is_tried(hub: Hub, tmp_path: Path, method: str, no_token: Distant) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "account": (),
        "create": (REPO,),
        "upload": (REPO, {"w.bin": b"w"}, {}),
        "commit": (REPO, [], ["x"], "step", NOBODY),
        "delete": (REPO,),
    }
    with pytest.raises(Refused, match="no Hub token") as caught:
        no_token(CALL, method, *arguments[method], **({"private": True} if method == "create" else {}))
    assert "HF_TOKEN" in str(caught.value.hint)
    assert not hub.log


@pytest.fixture(scope="module")
def no_token(module_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distant]:
    with Distant(environment(module_hub, "lfs", tmp_path_factory.mktemp("home"), token=None)) as process:
        yield process


def test_a_private_repository_is_not_there_for_those_without_a_token(hub: Hub, no_token: Distant) -> None:
    with pytest.raises(NotThere, match="may not see it"):
        no_token(CALL, "head", REPO)


def test_a_token_that_the_hub_does_not_know_is_refused(hub: Hub, client: Distant, tmp_path: Path) -> None:
    calls = [("account",), ("head", REPO), ("files", REPO, "main"), ("download", REPO, ".gitattributes", "main", tmp_path)]
    for call in calls:
        with pytest.raises(Refused, match="does not accept the token") as caught:
            client(CALL, *call, token="hf_unknown")
        assert "hf_unknown" not in str(caught.value)


def test_a_read_only_token_is_refused_before_anything_is_sent(hub: Hub, client: Distant) -> None:
    with pytest.raises(Refused, match="may not write to tester/run"):
        client(CALL, "upload", REPO, {"w.bin": b"w"}, {}, token=READ)
    with pytest.raises(Refused, match="may not make tester/new"):
        client(CALL, "create", "tester/new", private=True, token=READ)
    with pytest.raises(Refused, match="may not delete tester/run"):
        client(CALL, "delete", REPO, token=READ)
    assert not hub.requests("PUT")


def test_the_namespace_of_others_is_refused(hub: Hub, client: Distant) -> None:
    with pytest.raises(Refused, match="may not make stranger/new"):
        client(CALL, "create", "stranger/new", private=True)
    hub.create("stranger/open", private=False)
    with pytest.raises(Refused, match="may not write to stranger/open"):
        client(CALL, "upload", "stranger/open", {"w.bin": b"w"}, {})
    with pytest.raises(NotThere):
        client(CALL, "head", REPO, token=OTHER)


@pytest.mark.parametrize("status", [401, 403])
def test_a_storage_that_refuses_is_refused_however_deep_the_library_wraps_it(
    hub: Hub, both: Distant, tmp_path: Path, status: int
) -> None:
    (tmp_path / "w.bin").write_bytes(os.urandom(100_000))
    hub.fault(path="/_lfs/|/v1/xorbs/", status=status, times=FOR_EVER)
    with pytest.raises(Refused):
        both(UPLOAD, REPO, {"w.bin": tmp_path / "w.bin"})


def test_no_room_is_refused_and_is_not_taken_for_a_full_disk_here(hub: Hub, client: Distant) -> None:
    hub.fault(path="/commit/", status=403, body="Private repository storage limit: quota exceeded")
    with pytest.raises(Refused, match="quota exceeded"):
        client(PUSH, REPO, {"a.txt": b"a"})
    hub.fault(path="/api/repos/create", status=402, body="Payment required")
    with pytest.raises(Refused, match="storage or plan"):
        client(CALL, "create", "tester/new", private=True)


def test_a_name_that_is_none_is_refused(hub: Hub, client: Distant) -> None:
    with pytest.raises(Refused, match="not a repository id"):
        client(CALL, "head", "a/b/c")
    with pytest.raises(Refused, match="not a repository id"):
        client(CALL, "create", "tester/x.git", private=True)


def test_a_name_without_an_owner_makes_no_repository(hub: Hub, client: Distant) -> None:
    with pytest.raises(Refused, match="'ownerless' is not a repository id") as refused:
        client(CALL, "create", "ownerless", private=True)
    assert refused.value.hint == "write it as owner/name"
    assert not hub.requests("POST", "/api/repos/create")


# -- what is not there


def test_what_is_not_there_is_named(hub: Hub, client: Distant, tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="tester/none"):
        client(CALL, "head", "tester/none")
    with pytest.raises(NotThere, match="tester/run at no-such-tag"):
        client(CALL, "head", REPO, "no-such-tag")
    with pytest.raises(NotThere, match=r"tester/run/run/RUN\.json"):
        client(CALL, "download", REPO, "run/RUN.json", hub.commits(REPO)[0].oid, tmp_path)
    with pytest.raises(NotThere, match="tester/run/a"):
        client(CALL, "download", REPO, "a", NOBODY, tmp_path)
    with pytest.raises(NotThere):
        client(CALL, "files", REPO, NOBODY)
    with pytest.raises(NotThere):
        client(PUSH, REPO, {"a.txt": b"a"}, deletions=["checkpoint-10"])
    with pytest.raises(NotThere):
        client(CALL, "upload", "tester/none", {"w.bin": b"w"}, {})
    with pytest.raises(NotThere):
        client(CALL, "delete", "tester/none")


def test_a_file_to_push_that_is_gone_or_another_is_our_own_fault(hub: Hub, both: Distant, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.bin"):
        both(UPLOAD, REPO, {"w.bin": tmp_path / "gone.bin"})
    (tmp_path / "w.bin").write_bytes(b"changed")
    with pytest.raises(CheckpointError, match="changed since it was saved"):
        both(UPLOAD, REPO, {"w.bin": tmp_path / "w.bin"}, {"w.bin": "0" * 64})


def test_a_directory_that_cannot_be_written_is_no_failure_of_the_hub(hub: Hub, client: Distant, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        client(CALL, "download", REPO, ".gitattributes", hub.commits(REPO)[0].oid, tmp_path / "file")


# -- what passes


READS = [("account",), ("head", REPO), ("files", REPO, "main"), ("download", REPO, ".gitattributes", "main")]
WRITES = [("create", "tester/new"), ("upload", REPO, {"w.bin": b"w"}, {}), ("delete", REPO)]


def _all_calls(tmp_path: Path) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    for call in READS:
        yield (*call, *([tmp_path / "pulled"] if call[0] == "download" else [])), {}
    for call in WRITES:
        yield call, {"private": True} if call[0] == "create" else {}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_busy_hub_is_unavailable_at_once(hub: Hub, client: Distant, tmp_path: Path, status: int) -> None:
    hub.fault(status=status, times=FOR_EVER, headers={"Retry-After": "7"})
    for arguments, named in _all_calls(tmp_path):
        hub.log.clear()
        with pytest.raises(Unavailable, match=f"answered {status}") as caught:
            client(CALL, *arguments, **named)
        assert caught.value.wait_s == 7
        assert len(hub.log) == 1  # not once more


@pytest.mark.parametrize("headers", [{"Retry-After": "100000"}, {"RateLimit": '"api";r=0;t=100000'}])
@pytest.mark.parametrize("path", ["/commit/", "/preupload/", "/_lfs/", "batch", "/tree/"])
def test_nobody_makes_us_wait_for_hours(hub: Hub, client: Distant, path: str, headers: dict[str, str]) -> None:
    hub.fault(path=path, status=429, headers=headers)
    with pytest.raises(Unavailable) as caught:
        client(CALL, "files", REPO, "main") if path == "/tree/" else client(PUSH, REPO, {"w.bin": os.urandom(100)})
    assert caught.value.wait_s == 300


def test_a_storage_that_stumbles_once_is_asked_again(hub: Hub, both: Distant, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(os.urandom(100_000))
    fault = hub.fault(path="/_lfs/|/v1/xorbs/", status=503)
    both(PUSH, REPO, {"w.bin": tmp_path / "w.bin"})
    assert fault.times == 0


def test_a_storage_that_keeps_failing_is_unavailable(hub: Hub, both: Distant, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(os.urandom(100_000))
    hub.fault(path="/_lfs/|/v1/xorbs/", status=503, times=FOR_EVER, headers={"Retry-After": "60"})
    with pytest.raises(Unavailable):
        both(UPLOAD, REPO, {"w.bin": tmp_path / "w.bin"})


@pytest.mark.parametrize("drop", ["before", "body", "after"])
def test_a_line_that_is_cut_is_unavailable_at_once(hub: Hub, client: Distant, tmp_path: Path, drop: str) -> None:
    hub.fault(drop=drop, times=FOR_EVER)
    for arguments, named in _all_calls(tmp_path):
        hub.log.clear()
        if drop == "body" and arguments[0] not in ("create", "upload", "delete"):
            continue
        with pytest.raises(Unavailable):
            client(CALL, *arguments, **named)
        assert len(hub.log) == 1


def test_after_a_lost_answer_the_commit_may_have_gone_through(hub: Hub, client: Distant) -> None:
    hub.fault(path="/commit/", drop="after")
    with pytest.raises(Unavailable):
        client(PUSH, REPO, {"a.txt": b"a"}, message="step 10")
    assert [commit.title for commit in hub.commits(REPO)] == ["step 10", "initial commit"]


def test_a_hub_that_is_down_is_unavailable_and_then_there_again(hub: Hub, client: Distant, tmp_path: Path) -> None:
    head = client(CALL, "head", REPO)
    hub.down()
    for arguments, named in _all_calls(tmp_path):
        with pytest.raises(Unavailable, match=r"Connect|reset|disconnected"):
            client(CALL, *arguments, **named)
    hub.up()
    assert client(CALL, "head", REPO) == head


def test_an_object_that_the_storage_refuses_comes_with_its_reason(hub: Hub, client: Distant) -> None:
    hub.refused_objects.add(hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(Unavailable, match="the object is refused"):
        client(UPLOAD, REPO, {"w.bin": b"weights"})


def test_an_answer_that_is_none_of_the_hub_is_unavailable(hub: Hub, client: Distant) -> None:
    hub.fault(
        path="/api/", status=200, body="<h1>Welcome to the hotel</h1>", headers={"Content-Type": "text/html"}, times=FOR_EVER
    )
    for arguments in (("account",), ("head", REPO), ("files", REPO, "main")):
        with pytest.raises(Unavailable, match="makes no sense"):
            client(CALL, *arguments)
    hub.reset()
    hub.fault(path="/revision/", status=200)
    with pytest.raises(Unavailable, match=r"makes no sense|names no commit"):
        client(CALL, "head", REPO)


def test_a_commit_on_an_older_one_is_a_conflict(hub: Hub, client: Distant) -> None:
    old = hub.commits(REPO)[0].oid
    hub.put(REPO, {"other.txt": b"somebody was quicker"})
    with pytest.raises(Conflict):
        client(PUSH, REPO, {"a.txt": b"a"}, parent=old)
    assert "a.txt" not in hub.tree(REPO)


def test_repositories_that_are_made_at_the_same_time_are_made_later(hub: Hub, client: Distant) -> None:
    said = "Cannot create repo: another conflicting operation is in progress"
    hub.fault(path="/api/repos/create", status=409, body=said, times=FOR_EVER)
    with pytest.raises(Unavailable):
        client(CALL, "create", "tester/new", private=True)
    assert len(hub.requests("POST", "/api/repos/create")) == 1


def test_offline_no_request_is_made(hub: Hub, tmp_path: Path) -> None:
    offline = {**environment(hub, "lfs", tmp_path / "home", WRITE), "HF_HUB_OFFLINE": "1"}
    with Distant(offline) as process:
        for arguments, named in _all_calls(tmp_path):
            with pytest.raises(Offline, match="HF_HUB_OFFLINE"):
                process(CALL, *arguments, **named)
    assert not hub.log


def _bytes_sent(hub: Hub) -> int:
    return sum(request.received for request in hub.requests("PUT|POST", "/_lfs/|/v1/xorbs/"))
