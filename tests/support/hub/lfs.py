"""Large files: LFS uploads in one piece or in parts, and downloads of every file, by way of a second origin."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.hub.access import commit_at, readable, writable
from support.hub.routing import PLAIN, REVISION, kind_of, route
from support.hub.store import Entry
from support.hub.wire import Exchange, Refusal

if TYPE_CHECKING:
    from support.hub.server import Hub

_OBJECT = r"(?P<oid>[0-9a-f]{64})"


@route("POST", PLAIN + r"\.git/info/lfs/objects/batch")
def plan_uploads(exchange: Exchange, name: str, prefix: str | None = None) -> None:
    """Say where each object goes; objects that are there already have no place to go."""
    writable(exchange, kind_of(prefix), name)
    asked = exchange.json()
    verify = f"{exchange.hub.endpoint}/{prefix or ''}{name}.git/info/lfs/verify"
    in_parts = "multipart" in asked.get("transfers", [])
    objects = [_plan(exchange.hub, wanted, verify, in_parts) for wanted in asked["objects"]]
    exchange.reply({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")


def _plan(hub: Hub, wanted: dict[str, Any], verify: str, in_parts: bool) -> dict[str, Any]:
    oid, size = wanted["oid"], wanted["size"]
    planned: dict[str, Any] = {"oid": oid, "size": size}
    if oid in hub.refused_objects:
        return {**planned, "error": {"code": 422, "message": "the object is refused"}}
    if hub.store.lfs(oid).exists():
        return planned
    upload: dict[str, Any] = {"href": f"{hub.cdn}/_lfs/{oid}"}
    if hub.part_size and size > hub.part_size and in_parts:
        count = -(-size // hub.part_size)
        parts = {str(number): f"{hub.cdn}/_lfs_part/{oid}/{number}" for number in range(1, count + 1)}
        upload = {"href": f"{hub.endpoint}/_lfs_complete/{oid}", "header": {"chunk_size": str(hub.part_size), **parts}}
    return {**planned, "actions": {"upload": upload, "verify": {"href": verify}}}


def receive(exchange: Exchange, place: Path, sha256: str | None = None) -> str:
    """Stream the body to a file, whole or not at all; returns its SHA-256, and insists on ``sha256`` if given."""
    digest = hashlib.sha256()
    descriptor, temporary = tempfile.mkstemp(dir=exchange.hub.store.root / "parts")
    try:
        with os.fdopen(descriptor, "wb") as out:
            for piece in exchange.pieces():
                digest.update(piece)
                out.write(piece)
        if sha256 and digest.hexdigest() != sha256:
            raise Refusal(400, "content does not match its sha256")
        Path(temporary).replace(place)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return digest.hexdigest()


@route("PUT", f"/_lfs/{_OBJECT}")
def put_object(exchange: Exchange, oid: str) -> None:
    """Take an object in one piece."""
    receive(exchange, exchange.hub.store.lfs(oid), oid)
    exchange.reply(b"", headers={"ETag": f'"{oid}"'})


@route("PUT", rf"/_lfs_part/{_OBJECT}/(?P<number>\d+)")
def put_part(exchange: Exchange, oid: str, number: str) -> None:
    """Take one part."""
    tag = receive(exchange, _part(exchange.hub, oid, int(number)))
    exchange.reply(b"", headers={"ETag": f'"{tag}"'})


def _part(hub: Hub, oid: str, number: int) -> Path:
    return hub.store.root / "parts" / f"{oid}.{number}"


@route("POST", f"/_lfs_complete/{_OBJECT}")
def complete(exchange: Exchange, oid: str) -> None:
    """Put the parts together."""
    numbers = [int(part["partNumber"]) for part in exchange.json()["parts"]]
    content = b"".join(_part(exchange.hub, oid, number).read_bytes() for number in numbers)
    if hashlib.sha256(content).hexdigest() != oid:
        raise Refusal(400, "parts do not add up to the sha256")
    exchange.hub.store.write(exchange.hub.store.lfs(oid), content)
    exchange.reply({})


@route("POST", PLAIN + r"\.git/info/lfs/verify")
def verify_object(exchange: Exchange, name: str, prefix: str | None = None) -> None:
    """Whether an object is there in full."""
    writable(exchange, kind_of(prefix), name)
    asked = exchange.json()
    file = exchange.hub.store.lfs(asked["oid"])
    if not file.exists() or file.stat().st_size != asked["size"]:
        raise Refusal(404, "object not found or of another size")
    exchange.reply({})


@route("GET|HEAD", PLAIN + "/resolve" + REVISION + "/(?P<path>.+)")
def resolve(exchange: Exchange, name: str, revision: str, path: str, prefix: str | None = None) -> None:
    """A regular file itself; for a large one where it is to be had."""
    kind = kind_of(prefix)
    commit = commit_at(readable(exchange, kind, name), revision)
    headers = {"X-Repo-Commit": commit.oid, "Content-Disposition": f'inline; filename="{path.split("/")[-1]}"'}
    entry = commit.tree.get(path)
    if entry is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", headers=headers)
    if entry.sha256 is None:
        exchange.reply_file(exchange.hub.store.file(entry), {**headers, "ETag": f'"{entry.oid}"'})
        return
    token = f"{exchange.hub.endpoint}/api/{kind}/{name}/xet-read-token/{commit.oid}"
    exchange.reply(b"", 302, {**headers, **_where(exchange.hub, entry, token)})


def _where(hub: Hub, entry: Entry, token: str) -> dict[str, str]:
    headers = {
        "X-Linked-Etag": f'"{entry.sha256}"',
        "X-Linked-Size": str(entry.size),
        "Location": f"{hub.cdn}/_lfs/{entry.sha256}?sig=x",
    }
    if entry.xet:
        headers |= {"X-Xet-Hash": entry.xet, "Link": f'<{token}>; rel="xet-auth"'}
    return headers


@route("GET|HEAD", f"/_lfs/{_OBJECT}")
def get_object(exchange: Exchange, oid: str) -> None:
    """A large file."""
    file = exchange.hub.store.lfs(oid)
    if not file.exists():
        raise Refusal(404, "no such object")
    exchange.reply_file(file, {"ETag": f'"{oid}"'})
