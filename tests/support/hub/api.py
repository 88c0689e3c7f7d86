"""The account, repositories as a whole, and the controls for whoever runs the look-alike by hand."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from support.hub.access import commit_at, known_user, readable, writable
from support.hub.routing import REPOSITORY, REVISION, prefix_of, route
from support.hub.store import Entry
from support.hub.wire import Exchange, Refusal

_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?")


@route("POST", "/_test/faults")
def set_faults(exchange: Exchange) -> None:
    """Put one rule in force, or a list of them."""
    rules = exchange.json()
    for rule in rules if isinstance(rules, list) else [rules]:
        exchange.hub.fault(**rule)
    exchange.reply({})


@route("GET", "/_test/log")
def show_log(exchange: Exchange) -> None:
    """Every request since the start or the last clearing."""
    exchange.reply([{**asdict(entry), "body": entry.body.decode(errors="replace")} for entry in exchange.hub.log])


@route("GET", "/_test/state")
def show_state(exchange: Exchange) -> None:
    """Every repository."""
    exchange.reply([asdict(repository) for repository in exchange.hub.store.repositories.values()])


@route("DELETE", "/_test")
def clear(exchange: Exchange) -> None:
    """Forget rules and log."""
    exchange.hub.faults.clear()
    exchange.hub.log.clear()
    exchange.reply({})


@route("GET", "/api/whoami-v2")
def whoami(exchange: Exchange) -> None:
    """The token's owner and role."""
    user = known_user(exchange)
    token = {"displayName": "test", "role": user.role}
    organisations = [{"type": "org", "name": name} for name in user.organisations]
    account = {"type": "user", "id": "0", "name": user.name, "fullname": user.name, "isPro": False, "orgs": organisations}
    exchange.reply({**account, "auth": {"type": "access_token", "accessToken": token}})


def _wants_private(asked: dict[str, Any]) -> bool:
    return asked.get("visibility") == "private" or bool(asked.get("private"))


@route("POST", "/api/repos/create")
def create(exchange: Exchange) -> None:
    """Make a repository; 409 when there is one of this name, with its address, which the client reads."""
    user, asked = known_user(exchange), exchange.json()
    namespace, kind = asked.get("organization") or user.name, f"{asked.get('type') or 'model'}s"
    name = f"{namespace}/{asked['name']}"
    url = f"{exchange.hub.endpoint}/{prefix_of(kind)}{name}"
    if user.role == "read" or not user.owns(namespace):
        raise Refusal(403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{namespace}".')
    if not _NAME.fullmatch(asked["name"]) or asked["name"].endswith(".git"):
        raise Refusal(400, f"Invalid repo name: {asked['name']}")
    store = exchange.hub.store
    with store.lock:
        if (kind, name) in store.repositories:
            raise Refusal(409, f"You already created this {kind[:-1]} repo", url=url)
        store.create(kind, name, private=_wants_private(asked))
    exchange.reply({"url": url, "name": name, "id": name})


@route("DELETE", "/api/repos/delete")
def delete(exchange: Exchange) -> None:
    """Delete a repository."""
    asked = exchange.json()
    name = f"{asked.get('organization') or known_user(exchange).name}/{asked['name']}"
    repository = writable(exchange, f"{asked.get('type') or 'model'}s", name)
    with exchange.hub.store.lock:
        exchange.hub.store.remove(repository)
    exchange.reply({})


@route("PUT", REPOSITORY + "/settings")
def change_settings(exchange: Exchange, kind: str, name: str) -> None:
    """Make a repository private, public or gated."""
    repository, asked = writable(exchange, kind, name), exchange.json()
    if "visibility" in asked or "private" in asked:
        repository.private = _wants_private(asked)
    repository.gated = bool(asked.get("gated", repository.gated))
    exchange.hub.store.save(repository)
    exchange.reply({"private": repository.private, "gated": repository.gated})


@route("GET", REPOSITORY)
@route("GET", REPOSITORY + "/revision" + REVISION)
def describe(exchange: Exchange, kind: str, name: str, revision: str = "main") -> None:
    """What a repository is, where a revision stands, and which files it has there."""
    repository = readable(exchange, kind, name)
    commit = commit_at(repository, revision)
    siblings = [_sibling(path, entry, bool(exchange.query.get("blobs"))) for path, entry in sorted(commit.tree.items())]
    exchange.reply(
        {
            "_id": "0",
            "id": name,
            "modelId": name,
            "author": repository.namespace,
            "sha": commit.oid,
            "lastModified": commit.date,
            "createdAt": repository.created,
            "private": repository.private,
            "gated": repository.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
            "usedStorage": sum(entry.size for entry in commit.tree.values()),
        }
    )


def _sibling(path: str, entry: Entry, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": path}
    large = {"lfs": {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}} if entry.sha256 else {}
    return {"rfilename": path, "size": entry.size, "blobId": entry.oid, **large}


@route("GET", REPOSITORY + "/auth-check")
def check_access(exchange: Exchange, kind: str, name: str) -> None:
    """Whether one may read."""
    readable(exchange, kind, name)
    exchange.reply({})


@route("POST", "/api/validate-yaml")
def validate_card(exchange: Exchange) -> None:
    """Every model card is fine here."""
    exchange.body()
    exchange.reply({"errors": [], "warnings": []})
