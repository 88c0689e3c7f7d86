"""The look-alike is enough of a Hub for the real huggingface_hub, by LFS and by Xet, and can fail as the Hub can."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from pathlib import Path

import pytest

from support.hub import Hub
from support.hub.distant import Distant
from support.hub.environment import OTHER, READ, WRITE, environment
from support.hub.lz4 import unpack

LIBRARY = "support.hub.library:"
REPO = "tester/run"


@pytest.fixture
def hub(emptied_hub: Hub) -> Hub:
    """An empty hub, whatever another test left behind."""
    return emptied_hub


@pytest.fixture
def distant(module_distant: Distant) -> Distant:
    return module_distant


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint of a large and a small file."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "adapter_model.safetensors").write_bytes(os.urandom(200_000) + bytes(100_000))
    (source / "state.json").write_text("{}")
    return source


def assert_same(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert [(one / name).read_bytes() for name in names] == [(other / name).read_bytes() for name in names]


def test_what_is_pushed_is_what_is_pulled(hub: Hub, distant: Distant, source: Path, tmp_path: Path) -> None:
    distant(f"{LIBRARY}create", REPO)
    pushed = distant(f"{LIBRARY}push", REPO, source, "checkpoint-10", "step 10")
    distant(f"{LIBRARY}pull", REPO, tmp_path / "pulled")
    assert_same(source, tmp_path / "pulled" / "checkpoint-10")
    assert hub.repository(REPO).private
    assert [commit.title for commit in hub.commits(REPO)] == distant(f"{LIBRARY}commits", REPO) == ["step 10", "initial commit"]
    assert hub.commits(REPO)[0].oid == pushed
    content = (source / "adapter_model.safetensors").read_bytes()
    entry = hub.tree(REPO)["checkpoint-10/adapter_model.safetensors"]
    assert (entry.size, entry.sha256) == (300_000, hashlib.sha256(content).hexdigest())
    assert hub.content(REPO, "checkpoint-10/adapter_model.safetensors") == content
    assert hub.tree(REPO)["checkpoint-10/state.json"].sha256 is None


def test_the_mode_decides_how_large_files_travel(hub: Hub, distant: Distant, source: Path, mode: str) -> None:
    hub.create(REPO)
    distant(f"{LIBRARY}push", REPO, source, "checkpoint-10")
    by_lfs, by_xet = hub.requests("PUT", "/_lfs/"), hub.requests("POST", "/v1/xorbs/")
    assert (bool(by_lfs), bool(by_xet)) == ((True, False) if mode == "lfs" else (False, True))
    assert not any(request.authorised for request in by_lfs)  # the token never leaves the Hub


def test_a_listing_of_many_pages_is_whole(hub: Hub, module_lfs: Distant, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO)
    names = [f"part/{number:02}.txt" for number in range(7)]
    hub.put(REPO, dict.fromkeys(names, b"x"))
    monkeypatch.setattr(hub, "page", 3)
    assert module_lfs(f"{LIBRARY}files", REPO) == [".gitattributes", *names]


def test_a_deleted_folder_is_gone_and_still_in_the_commit_before(hub: Hub, module_lfs: Distant) -> None:
    hub.create(REPO)
    before = hub.put(REPO, {"checkpoint-10/a.txt": b"a", "checkpoint-20/a.txt": b"b"})
    module_lfs(f"{LIBRARY}remove_folder", REPO, "checkpoint-10")
    assert module_lfs(f"{LIBRARY}files", REPO) == [".gitattributes", "checkpoint-20/a.txt"]
    assert hub.content(REPO, "checkpoint-10/a.txt", before.oid) == b"a"


def test_what_was_changed_behind_the_scenes_is_what_is_pulled(hub: Hub, distant: Distant, tmp_path: Path) -> None:
    hub.create(REPO)
    hub.put(REPO, {"w.safetensors": b"large", "kept.txt": b"old", "gone/a.txt": b"a", "gone/b/c.txt": b"c"})
    hub.put(REPO, {"kept.txt": b"new"}, delete=["gone"])
    distant(f"{LIBRARY}pull", REPO, tmp_path / "pulled")
    found = {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir() if path.is_file()}
    assert found.pop(".gitattributes")
    assert found == {"w.safetensors": b"large", "kept.txt": b"new"}


def test_a_planted_path_stands_in_the_listing(hub: Hub, module_lfs: Distant) -> None:
    hub.create(REPO)
    hub.raw_tree(REPO)["checkpoint-10/../../evil"] = hub.store.add("evil", b"evil")
    assert "checkpoint-10/../../evil" in module_lfs(f"{LIBRARY}files", REPO)


@pytest.mark.parametrize("path", ["/preupload/", "/_lfs/|/v1/xorbs/"])
def test_a_push_outlives_an_answer_of_503(hub: Hub, distant: Distant, source: Path, path: str) -> None:
    hub.create(REPO)
    fault = hub.fault(path=path, status=503)
    distant(f"{LIBRARY}push", REPO, source, "checkpoint-10")
    assert fault.times == 0
    assert "checkpoint-10/state.json" in hub.tree(REPO)


def test_a_lost_answer_to_a_commit_leaves_the_commit(hub: Hub, distant: Distant, source: Path) -> None:
    hub.create(REPO)
    hub.fault(path="/commit/", drop="after")
    with pytest.raises(Exception, match=r"disconnected|reset"):
        distant(f"{LIBRARY}push", REPO, source, "checkpoint-10", "step 10")
    assert hub.commits(REPO)[0].title == "step 10"


def test_a_commit_on_an_older_one_is_refused_with_412(hub: Hub, distant: Distant, source: Path) -> None:
    hub.create(REPO)
    old = hub.commits(REPO)[0].oid
    hub.put(REPO, {"other.txt": b"somebody was quicker"})
    with pytest.raises(Exception, match="412"):
        distant(f"{LIBRARY}push", REPO, source, "checkpoint-10", parent=old)
    assert "checkpoint-10/state.json" not in hub.tree(REPO)


def test_content_that_is_there_is_not_sent_again(hub: Hub, distant: Distant, source: Path) -> None:
    hub.create(REPO)
    distant(f"{LIBRARY}push", REPO, source, "checkpoint-10")
    hub.log.clear()
    distant(f"{LIBRARY}push", REPO, source, "checkpoint-20")
    assert sum(request.received for request in hub.requests("PUT|POST", "/_lfs/|/v1/xorbs/")) < 1000
    assert len(hub.tree(REPO)) == 5


def test_a_cut_download_is_resumed_where_it_was_cut(hub: Hub, module_lfs: Distant, tmp_path: Path) -> None:
    content = os.urandom(12 << 20)  # the library writes pieces of 10 MiB
    hub.create(REPO)
    hub.put(REPO, {"w.bin": content})
    hub.fault(method="GET", path="/_lfs/", drop="download", after=11 << 20, fin=True)
    module_lfs(f"{LIBRARY}pull", REPO, tmp_path / "pulled")
    assert (tmp_path / "pulled" / "w.bin").read_bytes() == content
    ranges = [request.range for request in hub.requests("GET", "/_lfs/")]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert ranges[1] is not None


def test_large_files_go_in_parts_of_which_only_a_failed_one_is_repeated(
    hub: Hub, module_lfs: Distant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "part_size", 100_000)
    (tmp_path / "source").mkdir()
    content = os.urandom(250_000)
    (tmp_path / "source" / "w.bin").write_bytes(content)
    hub.create(REPO)
    hub.fault(method="PUT", path="/_lfs_part/.*/2$", drop="body", after=50_000)
    module_lfs(f"{LIBRARY}push", REPO, tmp_path / "source", "checkpoint-10")
    assert hub.content(REPO, "checkpoint-10/w.bin") == content
    assert sorted(request.path[-2:] for request in hub.requests("PUT", "/_lfs_part/")) == ["/1", "/2", "/2", "/3"]


def test_a_corrupted_answer_has_its_first_byte_changed(hub: Hub) -> None:
    hub.create(REPO, private=False)
    hub.put(REPO, {"a.txt": b"abc"})
    hub.fault(path="/resolve/", corrupt=True)
    assert _ask(hub, f"GET /{REPO}/resolve/main/a.txt").endswith(b"\r\n\r\n" + bytes([ord("a") ^ 0xFF]) + b"bc")


def test_while_it_is_down_connections_are_refused_and_then_answered_on_the_same_port(hub: Hub) -> None:
    address = hub.endpoint
    kept = _connect(hub)
    kept.sendall(b"GET /api/whoami-v2 HTTP/1.1\r\nHost: hub\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        answer += kept.recv(4096)
    hub.down()
    with contextlib.suppress(ConnectionError):
        assert kept.recv(4096) == b""
    with pytest.raises(ConnectionRefusedError):
        _connect(hub)
    hub.up()
    assert b"401" in _ask(hub, "GET /api/whoami-v2")
    assert hub.endpoint == address
    kept.close()


def test_commits_over_the_limit_are_told_to_wait(hub: Hub, module_lfs: Distant, source: Path) -> None:
    hub.create(REPO)
    hub.limit_commits(1, 3600)
    module_lfs(f"{LIBRARY}push", REPO, source, "checkpoint-10")
    with pytest.raises(Exception, match="429"):
        module_lfs(f"{LIBRARY}push", REPO, source, "checkpoint-20")
    assert len(hub.commits(REPO)) == 2
    hub.limit_commits(1, 3600)
    module_lfs(f"{LIBRARY}push", REPO, source, "checkpoint-20")
    assert len(hub.commits(REPO)) == 3


def test_everything_that_was_pushed_can_be_searched(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "w.bin").write_bytes(b"pattern" * 1000 + b"needle-large" + b"pattern" * 1000)
    (source / "a.json").write_text('{"key": "needle-small"}')
    with Hub(tmp_path / "server", keep_bodies=True) as hub, Distant(environment(hub, mode, tmp_path / "home")) as process:
        hub.create(REPO)
        process(f"{LIBRARY}push", REPO, source, "x", "needle-title")
        hub.fault(path="/commit/", status=400)
        (source / "b.json").write_text("needle-refused")
        halves = b"needle-unc" + bytes(2000) + b"committed" + bytes(2000)  # so that LZ4 writes the whole as copies of them
        (source / "v.bin").write_bytes(halves + b"needle-uncommitted" + bytes(2000))
        with pytest.raises(Exception, match="Bad request"):
            process(f"{LIBRARY}push", REPO, source, "x")
        for needle in ("needle-large", "needle-small", "needle-title", "needle-refused", "needle-uncommitted"):
            assert hub.where(needle), needle
        assert not hub.where("needle-nowhere")
        assert not hub.where(WRITE)


@pytest.mark.parametrize(("token", "status"), [(READ, "403"), (OTHER, "404"), ("hf_unknown", "401"), (False, "401")])
def test_only_its_owners_may_push(hub: Hub, module_lfs: Distant, source: Path, token: str | bool, status: str) -> None:
    hub.create(REPO)
    with pytest.raises(Exception, match=status):
        module_lfs(f"{LIBRARY}push", REPO, source, "checkpoint-10", token=token)
    assert len(hub.commits(REPO)) == 1


def test_a_later_hub_on_the_same_directory_has_it_all(tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        hub.create(REPO)
        hub.put(REPO, {"w.bin": b"large", "a.txt": b"small"})
        tree = hub.tree(REPO)
    with Hub(tmp_path) as later:
        assert later.tree(REPO) == tree
        assert later.content(REPO, "w.bin") == b"large"
        assert len(later.commits(REPO)) == 2


@pytest.mark.parametrize(
    ("packed", "content"),
    [
        ("04224d18604082" + "0b000080" + b"hello world".hex() + "00000000", b"hello world"),
        # A token of 1 literal and a match of 4 + 15 + 5 bytes that overlaps itself, then 1 literal.
        ("04224d18604082" + "07000000" + "1f" + "61" + "0100" + "05" + "10" + "62" + "00000000", b"a" * 25 + b"b"),
    ],
)
def test_lz4_frames_are_unpacked(packed: str, content: bytes) -> None:
    assert unpack(bytes.fromhex(packed)) == content


def _connect(hub: Hub) -> socket.socket:
    host, port = hub.endpoint.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def _ask(hub: Hub, request: str) -> bytes:
    with _connect(hub) as connection:
        connection.sendall(f"{request} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))
