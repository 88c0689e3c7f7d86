"""Xet: a token on the Hub, and a content-addressed store that keeps xorbs as they come and reads the shards."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.hub import lz4
from support.hub.access import readable, writable
from support.hub.lfs import receive
from support.hub.routing import REPOSITORY, route
from support.hub.store import Store
from support.hub.wire import Exchange, Refusal

if TYPE_CHECKING:
    from support.hub.server import Hub

_HASH = r"(?P<digest>[0-9a-f]{64})"
_SHARD_HEADER = 48  # tag (32), version (8), size of the footer (8)
_RECORD = 48  # every record of a shard
_LAST = b"\xff" * 32
_LIFETIME_S = 3600


@dataclass(frozen=True)
class Term:
    """A run of chunks, from ``first`` up to but without ``end``, of one xorb: ``size`` bytes of a file."""

    xorb: str
    size: int
    first: int
    end: int


class XetStore:
    """What the shards told: of which terms a file is made, and under which Xet hash a SHA-256 goes."""

    def __init__(self, store: Store, *, on: bool) -> None:
        self.on = on
        self.files: dict[str, list[Term]] = {}
        self.hashes: dict[str, str] = {}
        self._store = store
        self._index = store.root / "xet.json"
        if self._index.exists():
            stored = json.loads(self._index.read_bytes())
            self.files = {name: [Term(*term) for term in terms] for name, terms in stored["files"].items()}
            self.hashes = stored["hashes"]

    def xorb(self, digest: str) -> Path:
        """Where a xorb lies, if it does."""
        return self._store.root / "xorbs" / digest

    def save(self) -> None:
        """Write what is known, for a later hub."""
        files = {name: [(t.xorb, t.size, t.first, t.end) for t in terms] for name, terms in self.files.items()}
        self._store.write(self._index, json.dumps({"files": files, "hashes": self.hashes}).encode())

    def read_shard(self, shard: bytes) -> None:
        """Learn a shard's files."""
        at = _SHARD_HEADER
        while shard[at : at + 32] != _LAST:
            name, (flags, count) = _digest(shard, at), struct.unpack_from("<II", shard, at + 32)
            self.files[name] = [_term(shard, at + _RECORD * number) for number in range(1, count + 1)]
            at += _RECORD * (1 + count * (2 if flags >> 31 & 1 else 1))  # with a verification record for each term
            if flags >> 30 & 1:
                self.hashes[_digest(shard, at)] = name
                at += _RECORD

    def content(self, name: str) -> bytes:
        """A file, put together from its chunks."""
        chunks = [_chunks(self.xorb(term.xorb).read_bytes())[term.first : term.end] for term in self.files[name]]
        return b"".join(_unpacked(chunk) for run in chunks for chunk in run)

    def xorbs(self) -> Iterator[tuple[str, bytes]]:
        """What every xorb holds, unpacked."""
        for xorb in sorted((self._store.root / "xorbs").iterdir()):
            yield f"xorb {xorb.name}", b"".join(_unpacked(chunk) for chunk in _chunks(xorb.read_bytes()))


def _digest(data: bytes, at: int) -> str:
    """A hash as Xet writes it in text: four numbers of eight bytes, each from its high end."""
    return "".join(data[at + i : at + i + 8][::-1].hex() for i in range(0, 32, 8))


def _term(shard: bytes, at: int) -> Term:
    _, size, first, end = struct.unpack_from("<4I", shard, at + 32)
    return Term(_digest(shard, at), size, first, end)


@dataclass(frozen=True)
class Chunk:
    """A chunk as it lies in its xorb, from byte ``start`` on: ``packed`` by ``scheme``."""

    start: int
    scheme: int
    size: int
    packed: bytes


def _chunks(xorb: bytes) -> list[Chunk]:
    """Each chunk has 8 bytes before it: version, packed size (3), scheme, size (3)."""
    at, found = 0, []
    while at + 8 <= len(xorb) and xorb[at] == 0:
        length = int.from_bytes(xorb[at + 1 : at + 4], "little")
        size = int.from_bytes(xorb[at + 5 : at + 8], "little")
        found.append(Chunk(at, xorb[at + 4], size, xorb[at + 8 : at + 8 + length]))
        at += 8 + length
    return found


def _unpacked(chunk: Chunk) -> bytes:
    if chunk.scheme == 0:
        return chunk.packed
    content = lz4.unpack(chunk.packed)
    return _ungrouped(content) if chunk.scheme == 2 else content


def _ungrouped(content: bytes) -> bytes:
    """Undo the grouping of every fourth byte, which packs floating-point numbers better."""
    out, at = bytearray(len(content)), 0
    for lane in range(4):
        count = len(range(lane, len(content), 4))
        out[lane::4] = content[at : at + count]
        at += count
    return bytes(out)


def materialise(hub: Hub, sha256: str) -> None:
    """Turn what came by way of Xet into a plain object, so that clients without Xet can pull it too."""
    name = hub.xet.hashes.get(sha256)
    if name is None:
        return
    content = hub.xet.content(name)
    if hashlib.sha256(content).hexdigest() == sha256:
        hub.store.write(hub.store.lfs(sha256), content)


@route("GET", REPOSITORY + "/xet-(?P<right>read|write)-token(?:/(?P<revision>[^/]+))?")
def give_token(exchange: Exchange, kind: str, name: str, right: str, revision: str | None = None) -> None:
    """Where the store is and a token for it: in the headers for Python, in the body for hf_xet."""
    (writable if right == "write" else readable)(exchange, kind, name)
    if not exchange.hub.xet.on:
        raise Refusal(404, "Xet is off on this server")
    expires = int(time.time()) + _LIFETIME_S
    headers = {
        "X-Xet-Cas-Url": exchange.hub.cdn,
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": str(expires),
    }
    exchange.reply({"casUrl": exchange.hub.cdn, "accessToken": "xet", "exp": expires}, headers=headers)


@route("POST", f"/v1/xorbs/default/{_HASH}")
def put_xorb(exchange: Exchange, digest: str) -> None:
    """Take a xorb."""
    place = exchange.hub.xet.xorb(digest)
    is_new = not place.exists()
    receive(exchange, place)
    exchange.reply({"was_inserted": is_new})


@route("GET", f"/_xorb/{_HASH}")
def get_xorb(exchange: Exchange, digest: str) -> None:
    """Give a xorb, or a range of it."""
    exchange.reply_file(exchange.hub.xet.xorb(digest))


@route("POST", "/v1/shards")
def put_shard(exchange: Exchange) -> None:
    """Take a shard."""
    shard = exchange.body()
    with exchange.hub.store.lock:
        exchange.hub.xet.read_shard(shard)
        exchange.hub.xet.save()
    exchange.reply({"result": 1})


@route("GET", f"/v1/reconstructions/{_HASH}")
def reconstruct(exchange: Exchange, digest: str) -> None:
    """Which chunks a file, or a range of it, is made of, and where they are."""
    terms = exchange.hub.xet.files.get(digest)
    if terms is None:
        raise Refusal(404, "file not found")
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.headers.get("Range") or "bytes=0-")
    first = int(wanted[1]) if wanted else 0
    last = int(wanted[2]) if wanted and wanted[2] else sum(term.size for term in terms) - 1
    used, skipped = _within(terms, first, last)
    if terms and not used:
        raise Refusal(416, "no such range")
    listed = [{"hash": t.xorb, "unpacked_length": t.size, "range": {"start": t.first, "end": t.end}} for t in used]
    exchange.reply({"offset_into_first_range": skipped, "terms": listed, "fetch_info": _places(exchange.hub, used)})


def _within(terms: list[Term], first: int, last: int) -> tuple[list[Term], int]:
    """The whole terms that the range touches, and how far into the first of them it begins."""
    used: list[Term] = []
    position = skipped = 0
    for term in terms:
        if position + term.size > first and position <= last:
            skipped = skipped if used else first - position
            used.append(term)
        position += term.size
    return used, skipped


def _places(hub: Hub, terms: list[Term]) -> dict[str, list[dict[str, Any]]]:
    places: dict[str, list[dict[str, Any]]] = {}
    for term in terms:
        chunks = _chunks(hub.xet.xorb(term.xorb).read_bytes())
        last = chunks[term.end - 1]
        span = {"start": chunks[term.first].start, "end": last.start + 8 + len(last.packed) - 1}
        place = {"range": {"start": term.first, "end": term.end}, "url": f"{hub.cdn}/_xorb/{term.xorb}", "url_range": span}
        places.setdefault(term.xorb, []).append(place)
    return places
