"""What goes wrong at random between an uploader and the look-alike, and what must hold of every commit all the same."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.manifest import parse_manifest
from pitstop.checkpointing.runs.inventory import INVENTORY, ROOT_ADAPTER, Inventory
from support.hub.server import Hub

KINDS: dict[str, dict[str, str]] = {
    "whoami": {"path": "/whoami"},
    "create": {"path": "/api/repos/create"},
    "head": {"path": "/api/models/[^?]*/revision/"},
    "preupload": {"path": "/preupload/"},
    "batch": {"path": "/info/lfs"},
    "objects": {"method": "PUT|POST", "path": "/_lfs/|/v1/xorbs|/v1/shards|/shards"},
    "commit": {"path": "/commit/"},
    "download": {"method": "GET|HEAD", "path": "/resolve/"},
    "anything": {"path": ""},
}
STATUSES = (408, 429, 500, 502, 503, 504)


def random_fault(rng: random.Random) -> dict[str, Any]:
    """One rule for ``Hub.fault``, of those that pass by themselves."""
    kind = rng.choice([*KINDS, "commit", "commit", "objects"])
    rule: dict[str, Any] = {**KINDS[kind], "skip": rng.choice([0, 0, 1, 2, 4, 8]), "times": rng.choice([1, 1, 2, 3])}
    what = rng.choice(["status", "status", "before", "body", "after", "after", "download", "delay", "rate"])
    if what == "status":
        headers: dict[str, str] = rng.choice([{}, {}, {}, *[{"Retry-After": text} for text in ("0", "0", "0", "soon", "1")]])
        rule |= {"status": rng.choice(STATUSES), "headers": headers}
    elif what == "delay":
        rule |= {"delay": rng.uniform(0.01, 0.3)}
    elif what == "rate":
        rule |= {"rate": rng.uniform(1e5, 1e6)}
    else:
        rule |= {"drop": what, "after": rng.choice([0, 1, 100, 3000]), "fin": rng.random() < 0.5}
    return rule


def spoil(hub: Hub, rng: random.Random) -> list[dict[str, Any]]:
    """Put one to four faults in force; what they are."""
    faults = [random_fault(rng) for _ in range(rng.randint(1, 4))]
    for fault in faults:
        hub.fault(**fault)
    return faults


@contextmanager
def away(hub: Hub, after_s: float, for_s: float) -> Iterator[None]:
    """The Hub goes down ``after_s`` from now and comes back ``for_s`` later; it is back at the end of the block."""
    over = threading.Event()

    def toggle() -> None:
        if over.wait(after_s):
            return
        hub.down()
        over.wait(for_s)
        hub.up()

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def assert_every_commit_is_whole(hub: Hub, repo: str) -> None:
    """At each commit the tree holds exactly what its inventory says, and the adapter at the root is the one named there."""
    for commit in hub.commits(repo):
        if INVENTORY not in commit.tree:
            assert set(commit.tree) <= {".gitattributes"}, commit
            continue
        inventory = Inventory.from_bytes(hub.content(repo, INVENTORY, commit.oid), commit.title)
        there = {path.split("/")[0] for path in commit.tree if path.startswith("checkpoint-")}
        assert there == set(inventory.checkpoints), commit.title
        for directory, entry in inventory.checkpoints.items():
            raw = hub.content(repo, f"{directory}/{layout.MANIFEST}", commit.oid)
            assert hashlib.sha256(raw).hexdigest() == entry.manifest_sha256, (commit.title, directory)
            manifest = parse_manifest(raw, directory)
            listed = {f"{directory}/{name}" for name in [*manifest.files, layout.MANIFEST]}
            assert listed == {path for path in commit.tree if path.startswith(f"{directory}/")}, (commit.title, directory)
            for name, record in manifest.files.items():
                content = hub.content(repo, f"{directory}/{name}", commit.oid)
                assert hashlib.sha256(content).hexdigest() == record.sha256, (commit.title, directory, name)
        assert inventory.root is not None
        for name in ROOT_ADAPTER:
            at_root, in_place = (hub.content(repo, path, commit.oid) for path in (name, f"{inventory.root}/{name}"))
            assert at_root == in_place, f"{commit.title}: {name} at the root is not that of {inventory.root}"
        for name, record in inventory.files.items():
            assert hashlib.sha256(hub.content(repo, f"run/{name}", commit.oid)).hexdigest() == record.sha256, (commit.title, name)
