"""Commits, and what the client asks before it makes one."""

from __future__ import annotations

import base64
import fnmatch
import json
from typing import TYPE_CHECKING, Any

from support.hub.access import commit_at, known_user, writable
from support.hub.routing import REPOSITORY, REVISION, prefix_of, route
from support.hub.store import Commit, Entry, Repository
from support.hub.wire import Exchange, Refusal
from support.hub.xet import materialise

if TYPE_CHECKING:
    from support.hub.server import Hub

Tree = dict[str, Entry]


@route("POST", REPOSITORY + "/preupload" + REVISION)
def preupload(exchange: Exchange, kind: str, name: str, revision: str) -> None:
    """Say of each file whether it goes to LFS, and what lies under its path already."""
    commit, hub, asked = commit_at(writable(exchange, kind, name), revision), exchange.hub, exchange.json()
    ignored = asked.get("gitIgnore")
    if ignored is None and ".gitignore" in commit.tree:
        ignored = hub.store.file(commit.tree[".gitignore"]).read_text()
    answers = []
    for file in asked["files"]:
        path, entry = file["path"], commit.tree.get(file["path"])
        mode = "lfs" if hub.store.is_large(path, file["size"]) else "regular"
        oid = entry.etag if entry else None
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": _is_ignored(path, ignored or ""), "oid": oid})
    exchange.reply({"files": answers, "commitOid": commit.oid})


def _is_ignored(path: str, rules: str) -> bool:
    """Whether the file's name matches a line: all that tests need of git's rules."""
    patterns = [line.strip() for line in rules.splitlines() if line.strip() and not line.startswith("#")]
    return any(fnmatch.fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in patterns)


@route("POST", REPOSITORY + "/commit" + REVISION)
def commit_changes(exchange: Exchange, kind: str, name: str, revision: str) -> None:
    """Make one commit of all changes, or none; 412 when the branch is not where the client thinks."""
    repository, hub = writable(exchange, kind, name), exchange.hub
    lines = [json.loads(line) for line in exchange.body().splitlines() if line.strip()]
    _keep_to_limit(hub)
    for line in lines[1:]:
        if line["key"] == "lfsFile" and not hub.store.lfs(line["value"]["oid"]).exists():
            materialise(hub, line["value"]["oid"])
    with hub.store.lock:
        commit = _commit(hub, repository, revision, lines, known_user(exchange).name)
    url = f"{hub.endpoint}/{prefix_of(kind)}{name}/commit/{commit.oid}"
    exchange.reply({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})


def _keep_to_limit(hub: Hub) -> None:
    wait_s = hub.commit_limit.wait_s() if hub.commit_limit else None
    if wait_s is not None:
        message = "You have exceeded the rate limit for repository commits"
        raise Refusal(429, message, headers={"Retry-After": str(wait_s if hub.retry_after is None else hub.retry_after)})


def _commit(hub: Hub, repository: Repository, revision: str, lines: list[dict[str, Any]], author: str) -> Commit:
    ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
    if ref not in repository.refs:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    head, tip = lines[0]["value"], repository.commits[repository.refs[ref]]
    if head.get("parentCommit") and not tip.oid.startswith(head["parentCommit"]):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    _refuse_missing(hub, lines)
    tree = dict(tip.tree)
    for line in lines[1:]:
        change = _CHANGES.get(line["key"])
        if change is None:
            raise Refusal(400, f"unknown operation {line['key']}")
        change(hub, tree, line["value"])
    return hub.store.commit(repository, ref, tree, head["summary"], message=head.get("description", ""), author=author)


def _refuse_missing(hub: Hub, lines: list[dict[str, Any]]) -> None:
    large = [line["value"] for line in lines if line["key"] == "lfsFile"]
    missing = [file["path"] for file in large if not hub.store.lfs(file["oid"]).exists()]
    if missing:
        reason = "Your push was rejected because an LFS pointer pointed to a file that does not exist"
        raise Refusal(400, f"{reason}: {', '.join(missing)}")


def _add_file(hub: Hub, tree: Tree, value: dict[str, Any]) -> None:
    tree[value["path"]] = hub.store.blob(base64.b64decode(value["content"]))


def _add_large(hub: Hub, tree: Tree, value: dict[str, Any]) -> None:
    size = hub.store.lfs(value["oid"]).stat().st_size
    tree[value["path"]] = hub.store.large(value["oid"], size, hub.xet.hashes.get(value["oid"]) if hub.xet.on else None)


def _delete_file(hub: Hub, tree: Tree, value: dict[str, Any]) -> None:
    if tree.pop(value["path"], None) is None:
        raise Refusal(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")


def _delete_folder(hub: Hub, tree: Tree, value: dict[str, Any]) -> None:
    gone = [path for path in tree if path.startswith(value["path"].rstrip("/") + "/")]
    if not gone:
        raise Refusal(404, f"A folder with this name doesn't exist: {value['path']}", "EntryNotFound")
    for path in gone:
        del tree[path]


_CHANGES = {"file": _add_file, "lfsFile": _add_large, "deletedFile": _delete_file, "deletedFolder": _delete_folder}
