"""Checkpoints to test with, and storages that count, fail or forget."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.checkpointing.store.store import CheckpointFacts, CheckpointInfo, CheckpointStore

FILES: dict[str, bytes] = {
    "adapter_model.safetensors": b"weights" * 300,
    "optimizer.safetensors": b"moments" * 200,
    "state.json": b"{}",
}
START = datetime(2026, 1, 1, 12, tzinfo=UTC)

OPERATIONS = (
    "make_directory",
    "create",
    "open_append",
    "write",
    "sync_file",
    "close",
    "sync_directory",
    "rename",
    "replace",
    "symlink",
    "link",
    "unlink",
    "remove_directory",
    "free_space",
)

Hook = Callable[[str, tuple[Any, ...]], None]


class ForgetfulStorage(LocalStorage):
    """Syncs nothing: for directories that need to outlive no power cut, and a hundred times as fast."""

    def sync_file(self, descriptor: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


class HookedStorage(LocalStorage):
    """Calls ``before`` with the name and arguments of each single operation, then ``after`` with its result.

    Syncing is told of and not done: no test can pull the plug, and a disk that is really synced costs most of the time.
    """

    def __init__(self, before: Hook | None = None, after: Callable[[str, tuple[Any, ...], Any], None] | None = None) -> None:
        self.before, self.after = before, after


def _hooked(name: str) -> Callable[..., Any]:
    real = getattr(ForgetfulStorage, name)

    def operation(self: HookedStorage, *arguments: Any) -> Any:
        if self.before is not None:
            self.before(name, arguments)
        result = real(self, *arguments)
        if self.after is not None:
            self.after(name, arguments, result)
        return result

    return operation


for _name in OPERATIONS:
    setattr(HookedStorage, _name, _hooked(_name))


class Counter:
    """A hook that does something at the ``at``-th operation (from 0); ``seen`` counts them."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.at, self.act, self.seen = at, act, 0

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.seen == self.at:
            self.seen += 1
            self.act()
        self.seen += 1


def failing(number: int) -> Callable[[], None]:
    """An action that raises ``OSError`` with this errno."""

    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def save(
    store: CheckpointStore,
    step: int,
    *,
    loss: float | None = None,
    name: str | None = None,
    files: Mapping[str, Any] = FILES,
    metrics: Mapping[str, float | None] | None = None,
) -> CheckpointInfo:
    """Commit ``checkpoint-<step>`` with small files that differ by step."""
    content = {key: data + str(step).encode() if isinstance(data, bytes) else data for key, data in files.items()}
    return store.write(
        name or layout.step_name(step),
        content,
        CheckpointFacts(
            step=step,
            epoch=step / 10,
            metrics=metrics if metrics is not None else {} if loss is None else {"val_loss": loss},
            world_size=1,
            fingerprints={"base": "b", "data": "d"},
            versions={"torch": "2.13.0"},
            saved_at=START + timedelta(seconds=step),
        ),
    )


def leftovers(directory: Path) -> list[str]:
    """Temporary and trash names that lie in ``directory``."""
    return sorted(path.name for path in directory.iterdir() if path.name.startswith((".tmp-", ".trash-")))


def in_child(body: Callable[[], object]) -> int:
    """Run ``body`` in a forked child; its exit status (0 done, 99 it raised, negative: killed by that signal)."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


ROOM_BYTES = 4 << 30
"""More than the whole suite leaves lying about."""


def fast_directory() -> Path | None:
    """A directory in memory for what need not last, where there is one with room: five times as fast as a busy disk."""
    memory = Path("/dev/shm")
    fits = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ROOM_BYTES
    return memory if fits else None
