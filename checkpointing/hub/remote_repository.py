"""A repository on the Hub as it is read: one commit of it, with patience for a Hub that fails."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from pitstop.checkpointing.disk.storage import read_regular_file
from pitstop.checkpointing.hub.client import Offline, RemoteFile, Unavailable
from pitstop.checkpointing.runs.inventory import INVENTORY, MAX_BYTES, Inventory
from pitstop.configs.errors import HubError, ResourceError, is_disk_full

_REPO = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")

Tell = Callable[[str], object]
"""Is told, in one line each, what goes on."""

Result = TypeVar("Result")


class RepositoryReader(Protocol):
    """The part of ``HubClient`` that reads a repository."""

    def head(self, repo: str, revision: str = "main") -> str: ...
    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]: ...
    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path: ...


@dataclass(frozen=True)
class Patience:
    """How long a Hub that fails is waited for, in seconds: at first, at most between two tries, and in all for one thing."""

    first_s: float = 2.0
    longest_s: float = 30.0
    total_s: float = 180.0
    sleep: Callable[[float], object] = field(default=time.sleep)


def split_reference(text: str) -> tuple[str, str | None]:
    """``owner/name@checkpoint-200`` as repository and checkpoint. ``HubError`` where it is not a repository id."""
    repo, at, checkpoint = text.strip().partition("@")
    if not _REPO.fullmatch(repo) or (at and not checkpoint):
        raise HubError(
            f"{text!r:.200} names no repository", hint="it reads owner/name, perhaps with a checkpoint: owner/name@checkpoint-200"
        )
    return repo, checkpoint or None


def inventory_at(reader: RepositoryReader, repo: str, head: str) -> Inventory:
    """What ``repo`` says that it holds at the commit ``head``. ``NotThere`` where it says nothing, ``CheckpointError`` for a record that is none."""
    with tempfile.TemporaryDirectory(prefix="pitstop-hub-") as directory:
        path = reader.download(repo, INVENTORY, head, Path(directory))
        return Inventory.from_bytes(read_regular_file(path, limit=MAX_BYTES), f"{repo}/{INVENTORY}")


class RemoteRepository:
    """One repository at one commit, with patience for a Hub that fails. ``HubError`` where ``repo`` is not a repository id."""

    def __init__(
        self, client: RepositoryReader, repo: str, *, tell: Tell = lambda line: None, patience: Patience | None = None
    ) -> None:
        split_reference(repo)
        self.repo, self.tell = repo, tell
        self.head = ""
        self.files: Mapping[str, RemoteFile] = {}
        self._client, self._patience = client, patience or Patience()

    def look(self) -> None:
        """See where the repository stands and what it holds there. Everything after goes by that commit."""
        self.head = self._patiently(lambda: self._client.head(self.repo))
        self.files = self._patiently(lambda: self._client.files(self.repo, self.head))

    def download(self, name: str, directory: Path) -> None:
        """Fetch one file into ``directory`` under its name in the repository."""
        self._patiently(lambda: self._client.download(self.repo, name, self.head, directory))

    def _patiently(self, call: Callable[[], Result]) -> Result:
        started, waited, pause = time.monotonic(), 0.0, self._patience.first_s
        while True:
            try:
                return call()
            except Offline as error:
                raise HubError(f"{self.repo} cannot be pulled: {error.reason}", hint="unset it to use the Hub") from error
            except Unavailable as error:
                if error.__cause__ is not None and is_disk_full(error.__cause__):
                    raise ResourceError(
                        f"{self.repo} cannot be pulled: the disk is full ({error.reason})",
                        hint="free some space; what was fetched is kept, and the same command goes on from there",
                    ) from error
                wait = max(pause, error.wait_s or 0.0)
                if max(waited, time.monotonic() - started) + wait > self._patience.total_s:
                    raise HubError(
                        f"{self.repo} cannot be pulled: {error.reason}",
                        hint="check the connection; what was fetched is kept, and the same command goes on from there",
                    ) from error
                self.tell(f"the Hub fails ({error.reason}); next try in {wait:.0f} s")
                self._patience.sleep(wait)
                waited += wait
                pause = min(2 * pause, self._patience.longest_s)
