"""What a repository holds and held: trees, history, branches and tags."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode

from support.hub.access import commit_at, known_user, readable, writable
from support.hub.routing import REPOSITORY, REVISION, route
from support.hub.store import Commit, Entry, Repository, directories, git_sha
from support.hub.wire import Exchange, Refusal


def _file(path: str, entry: Entry, commit: Commit, expand: str) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
    if entry.sha256:
        item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    if entry.xet:
        item["xetHash"] = entry.xet
    if expand.lower() == "true":
        item["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
    return item


def _directory(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": git_sha(path.encode()), "size": 0}


def _reply_page(exchange: Exchange, items: list[dict[str, Any]]) -> None:
    page, start = exchange.hub.page, int(exchange.query.get("cursor", 0))
    headers = {}
    if start + page < len(items):
        query = urlencode({**exchange.query, "cursor": start + page})
        headers["Link"] = f'<{exchange.hub.endpoint}{exchange.path.partition("?")[0]}?{query}>; rel="next"'
    exchange.reply(items[start : start + page], headers=headers)


@route("GET", REPOSITORY + "/tree" + REVISION + "(?:/(?P<path>.+))?")
def list_tree(exchange: Exchange, kind: str, name: str, revision: str, path: str | None = None) -> None:
    """The files and directories at a revision, all or below ``path``, in pages."""
    commit = commit_at(readable(exchange, kind, name), revision)
    under = f"{path.strip('/')}/" if path else ""
    names = [each for each in commit.tree if each.startswith(under)]
    if under and not names:
        raise Refusal(404, f'{path} does not exist on "{revision}"', "EntryNotFound")
    items = [_directory(each) for each in directories(names, under)]
    items += [_file(each, commit.tree[each], commit, exchange.query.get("expand", "")) for each in names]
    if exchange.query.get("recursive", "").lower() not in ("true", "1"):
        items = [item for item in items if "/" not in item["path"][len(under) :]]
    _reply_page(exchange, sorted(items, key=_path))


def _path(item: dict[str, Any]) -> str:
    return str(item["path"])


@route("POST", REPOSITORY + "/paths-info" + REVISION)
def describe_paths(exchange: Exchange, kind: str, name: str, revision: str) -> None:
    """The named paths, as far as there are such."""
    commit = commit_at(readable(exchange, kind, name), revision)
    form = parse_qs(exchange.body().decode())
    known = directories(commit.tree)
    items = []
    for path in form.get("paths", []):
        if path in commit.tree:
            items.append(_file(path, commit.tree[path], commit, form.get("expand", [""])[0]))
        elif path.rstrip("/") in known:
            items.append(_directory(path))
    exchange.reply(items)


@route("GET", REPOSITORY + "/commits" + REVISION)
def list_commits(exchange: Exchange, kind: str, name: str, revision: str) -> None:
    """The history of a revision, newest first, in pages."""
    repository = readable(exchange, kind, name)
    history = repository.history(commit_at(repository, revision))
    _reply_page(exchange, [_history_line(commit) for commit in history])


def _history_line(commit: Commit) -> dict[str, Any]:
    authors = [{"user": commit.author}]
    return {"id": commit.oid, "title": commit.title, "message": commit.message, "authors": authors, "date": commit.date}


def _refs(repository: Repository, prefix: str) -> list[dict[str, str]]:
    found = [(ref, oid) for ref, oid in repository.refs.items() if ref.startswith(prefix)]
    return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid} for ref, oid in found]


@route("GET", REPOSITORY + "/refs")
def list_refs(exchange: Exchange, kind: str, name: str) -> None:
    """Branches and tags."""
    repository = readable(exchange, kind, name)
    branches, tags = _refs(repository, "refs/heads/"), _refs(repository, "refs/tags/")
    exchange.reply({"branches": branches, "tags": tags, "converts": [], "pullRequests": _refs(repository, "refs/pr/")})


@route("POST|DELETE", REPOSITORY + "/branch/(?P<branch>[^/]+)")
def change_branch(exchange: Exchange, kind: str, name: str, branch: str) -> None:
    """Make or delete a branch."""
    repository, ref = writable(exchange, kind, name), f"refs/heads/{branch}"
    if exchange.command == "POST":
        if branch.startswith("refs/"):
            raise Refusal(400, f"Invalid reference for a branch: {branch}")
        _point(repository, ref, exchange.json().get("startingPoint") or "main")
    elif branch == "main":
        raise Refusal(403, "Cannot delete branch main")
    elif repository.refs.pop(ref, None) is None:
        raise Refusal(404, f"Cannot delete branch {branch}")
    exchange.hub.store.save(repository)
    exchange.reply({})


@route("POST|DELETE", REPOSITORY + "/tag" + REVISION)
def change_tag(exchange: Exchange, kind: str, name: str, revision: str) -> None:
    """Tag a revision, or delete the tag of that name."""
    repository = writable(exchange, kind, name)
    if exchange.command == "POST":
        _point(repository, f"refs/tags/{exchange.json()['tag']}", revision)
    elif repository.refs.pop(f"refs/tags/{revision}", None) is None:
        raise Refusal(404, f"Tag {revision} not found", "RevisionNotFound")
    exchange.hub.store.save(repository)
    exchange.reply({})


def _point(repository: Repository, ref: str, revision: str) -> None:
    if ref in repository.refs:
        raise Refusal(409, f"Reference already exists: {ref}")
    repository.refs[ref] = commit_at(repository, revision).oid


@route("POST", REPOSITORY + "/super-squash" + REVISION)
def squash(exchange: Exchange, kind: str, name: str, revision: str) -> None:
    """Replace a branch's history by one commit."""
    repository, asked = writable(exchange, kind, name), exchange.json()
    tree, title = commit_at(repository, revision).tree, asked.get("message") or "Super-squash branch"
    author = known_user(exchange).name
    exchange.hub.store.commit(repository, f"refs/heads/{revision}", tree, title, author=author, rooted=True)
    exchange.reply({})
