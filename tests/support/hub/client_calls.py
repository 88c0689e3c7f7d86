"""What tests have our ``HubClient`` do, in a process with the environment for it: see ``distant``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pitstop.checkpointing.hub.client import HubClient


def call(method: str, *arguments: Any, token: str | None = None, **named: Any) -> Any:
    """Call a method of a client of its own."""
    return getattr(HubClient(token), method)(*arguments, **named)


def upload(repo: str, files: Mapping[str, Path | bytes], hashes: Mapping[str, str] | None = None) -> int:
    """Send the large files, and commit nothing; returns how many files there were."""
    return len(HubClient().upload(repo, files, hashes or {}))


def push(
    repo: str,
    files: Mapping[str, Path | bytes],
    *,
    deletions: Sequence[str] = (),
    message: str = "step",
    parent: str | None = None,
) -> str:
    """Upload and commit on ``parent``, or on what is there; returns the commit."""
    client = HubClient()
    return client.commit(repo, client.upload(repo, files, {}), deletions, message, parent or client.head(repo))


def listing(repo: str, commit: str) -> dict[str, tuple[int, str, str | None]]:
    """Every file at a commit: its size, git's blob SHA-1, and its SHA-256 where it is a large one."""
    return {path: (file.size, file.oid, file.sha256) for path, file in HubClient().files(repo, commit).items()}
