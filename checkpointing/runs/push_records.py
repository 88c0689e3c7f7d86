"""What of a run is to go to the Hub, and how far that has come. Light enough for ``list-runs``; nothing here uses a network.

The committed checkpoints are the queue: whatever the run holds and the Hub does not is still to be pushed, so that no
crash can come between a checkpoint and its place in the queue, and retention spares it for as long. ``hub/outbox.json`` says
that and where the run is to be pushed; ``hub/state.json`` says what has arrived. Only the process that holds the lock in
``hub/`` writes the second one. Should it be lost, the repository tells the same.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.storage import LocalStorage, Storage, atomic_write, make_directories, read_regular_file, saving
from pitstop.checkpointing.runs.inventory import Inventory, RemoteCheckpoint
from pitstop.configs.errors import CheckpointError

if TYPE_CHECKING:
    from pitstop.configs.schema import HubSettings

DIRECTORY = "hub"
OUTBOX, STATE = "outbox.json", "state.json"
FORMAT_VERSION = 1
MAX_BYTES = 16 * 1024 * 1024
IN_STEP, BEHIND, FAILED = "in step", "behind", "failed"


@dataclass(frozen=True)
class Destination:
    """Where and how a run is pushed. ``repo`` None: ``{username or the account}/{run name}``, numbered where that is taken."""

    repo: str | None = None
    private: bool = True
    keep_last_n: int | None = None
    push_base: bool = False
    username: str | None = None

    @classmethod
    def of(cls, hub: HubSettings) -> Destination:
        """Where the settings send a run."""
        return cls(hub.repo, hub.private, hub.keep_last_n, hub.push_base, hub.username)


@dataclass(frozen=True)
class Arrived:
    """What is on the Hub: ``pushed`` by directory in the repository, each as ``inventory.RemoteCheckpoint.to_dict`` gives it.

    ``head`` is the commit that we know of, ``root`` whose adapter lies at the root and ``finished`` whether that is how the
    training ended. ``card`` is git's hash of the model card that we wrote last; empty where somebody has edited it since;
    ``curve`` whether there is a picture of the loss.
    ``problem`` says why pushing came to a stop; ``commits_at`` is when the last commits were made, in seconds since the epoch.
    """

    uid: str = field(default_factory=lambda: secrets.token_hex(16))
    repo: str | None = None
    head: str | None = None
    pushed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    root: str | None = None
    base: str | None = None
    finished: bool = False
    card: str | None = None
    curve: bool = False
    problem: str | None = None
    commits_at: tuple[float, ...] = ()

    def holding(self, inventory: Inventory) -> Arrived:
        """With what a repository holds that lists it in ``inventory``."""
        pushed = {directory: entry.to_dict() for directory, entry in inventory.checkpoints.items()}
        root, base, finished = inventory.root, inventory.base, inventory.finished
        return replace(self, uid=inventory.uid, pushed=pushed, root=root, base=base, finished=finished)


_TEXT, _FLAG = (str, type(None)), (bool,)
_OF_DESTINATION = {
    "repo": _TEXT, "private": _FLAG, "keep_last_n": (int, type(None)), "push_base": _FLAG, "username": _TEXT,
}  # fmt: skip
_OF_ARRIVED = {
    "uid": (str,), "repo": _TEXT, "head": _TEXT, "root": _TEXT, "base": _TEXT, "finished": _FLAG, "card": _TEXT, "curve": _FLAG,
    "problem": _TEXT,
}  # fmt: skip


class Outbox:
    """The ``hub`` directory of the run in ``run``."""

    def __init__(self, run: Path, storage: Storage | None = None) -> None:
        self.directory = Path(run) / DIRECTORY
        self._storage: Storage = storage or LocalStorage()

    def destination(self) -> Destination | None:
        """Where the run is to be pushed; None where it is not. ``CheckpointError`` when the file is damaged."""
        content = self._read(OUTBOX)
        if content is None:
            return None
        try:
            return Destination(**_typed(content, _OF_DESTINATION))
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.directory / OUTBOX}: damaged ({error})", hint="remove it and push the run again"
            ) from None

    def open(self, destination: Destination) -> None:
        """Have the run pushed from now on: what is not on the Hub is kept. ``ResourceError``."""
        self._write(OUTBOX, {"format_version": FORMAT_VERSION, **destination.__dict__})

    def close(self) -> None:
        """Have the run pushed no more; nothing on the Hub changes."""
        path = self.directory / OUTBOX
        with saving(path):
            if path.exists():
                self._storage.unlink(path)
                self._storage.sync_directory(self.directory)

    def arrived(self) -> Arrived:
        """What is on the Hub by our own records; nothing where they are missing. ``CheckpointError`` when they are damaged."""
        content = self._read(STATE)
        if content is None:
            return Arrived()
        try:
            pushed = {key: RemoteCheckpoint.from_dict(value).to_dict() for key, value in content["pushed"].items()}
            commits_at = tuple(float(moment) for moment in content["commits_at"])
            return Arrived(**_typed(content, _OF_ARRIVED), pushed=pushed, commits_at=commits_at)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{self.directory / STATE}: damaged ({error})", hint="remove it: the repository tells the same"
            ) from None

    def record(self, arrived: Arrived) -> None:
        """Put on record what is on the Hub. Only the holder of ``alone`` does. ``ResourceError``."""
        content = {**arrived.__dict__, "commits_at": list(arrived.commits_at), "format_version": FORMAT_VERSION}
        self._write(STATE, content)

    @contextmanager
    def alone(self, patience_s: float = 0.0) -> Iterator[None]:
        """Be the only process that pushes this run. ``RunError`` names the one that does."""
        make_directories(self._storage, self.directory)
        with locking.exclusive(self.directory / layout.LOCK, f"the push of {self.directory.parent.name}", patience_s=patience_s):
            yield

    def is_busy(self) -> bool:
        """Whether some process is pushing the run now."""
        return locking.is_locked(self.directory / layout.LOCK)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.directory / name
        try:
            content = json.loads(read_regular_file(path, limit=MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged ({error})", hint="remove it") from error
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(f"{path}: not in a format that this version reads", hint="upgrade Pitstop, or remove it")
        return content

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.directory / name
        with saving(path):
            make_directories(self._storage, self.directory)
            atomic_write(self._storage, path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def behind(arrived: Arrived, checkpoints: Iterable[tuple[str, int, str]], keep_last_n: int | None = None) -> list[str]:
    """Those of ``checkpoints``, given as (name, step, saved_at), that are to go to the Hub and are not there, in their order.

    Of several checkpoints of one step only the newest goes there: one that was put off by a signal is replaced by the
    one with its evaluation. With ``keep_last_n`` those do not that are older than so many there: retention on the Hub has
    taken them away, or would at once.
    """
    checkpoints = list(checkpoints)
    newest: dict[int, tuple[str, str]] = {}
    for name, step, saved_at in checkpoints:
        newest[step] = max(newest.get(step, ("", "")), (saved_at, name))
    pushed = {(entry.get("saved_at"), entry.get("name")) for entry in arrived.pushed.values()}
    waiting = [(name, step, saved_at) for name, step, saved_at in checkpoints if newest[step] == (saved_at, name)]
    return [
        name
        for name, step, saved_at in waiting
        if (saved_at, name) not in pushed and not _is_past(arrived, step, saved_at, keep_last_n)
    ]


def _is_past(arrived: Arrived, step: int, saved_at: str, keep_last_n: int | None) -> bool:
    """Whether ``keep_last_n`` on the Hub come after it; a later line of the run that repeats earlier steps does not."""
    if keep_last_n is None:
        return False
    later = [entry for entry in arrived.pushed.values() if entry["step"] > step and entry["saved_at"] > saved_at]
    return len(later) >= keep_last_n


@dataclass(frozen=True, slots=True)
class Standing:
    """``waiting``: the checkpoints that are not on the Hub yet, None where that is not known; ``problem``: why not."""

    repo: str | None
    state: str
    waiting: tuple[str, ...] | None
    problem: str | None

    @property
    def behind(self) -> int | None:
        """How many checkpoints are not on the Hub yet."""
        return None if self.waiting is None else len(self.waiting)

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it; ``behind`` is null where it is not known."""
        return {"repo": self.repo, "state": self.state, "behind": self.behind, "problem": self.problem}


def standing(run: Path, checkpoints: Sequence[tuple[str, int, str]]) -> Standing | None:
    """How the run in ``run`` stands, given its checkpoints as (name, step, saved_at); None where it is not pushed.

    Reads two small files. Records that are damaged are a problem like any other.
    """
    outbox = Outbox(run)
    try:
        destination = outbox.destination()
    except CheckpointError:
        return Standing(None, FAILED, None, f"{DIRECTORY}/{OUTBOX} is damaged")
    if destination is None:
        return None
    try:
        arrived = outbox.arrived()
    except CheckpointError:
        return Standing(destination.repo, FAILED, None, f"{DIRECTORY}/{STATE} is damaged")
    waiting = tuple(behind(arrived, checkpoints, destination.keep_last_n))
    state = FAILED if arrived.problem else BEHIND if waiting else IN_STEP
    return Standing(arrived.repo or destination.repo, state, waiting, arrived.problem)


def _typed(content: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The values that ``types`` names, each of exactly one of its types. ``KeyError``, ``TypeError``."""
    for key, kinds in types.items():
        if type(content[key]) not in kinds:
            raise TypeError(f"{content[key]!r:.80} is not a {kinds[0].__name__}")
    return {key: content[key] for key in types}
