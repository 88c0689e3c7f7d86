"""A Hub in memory with repositories and their histories, a clock, and runs to push there: for tests of the pushing side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.hub import client
from pitstop.checkpointing.hub.client import Account, Conflict, NotThere, RemoteFile, Unavailable
from pitstop.checkpointing.hub.contents import blob_sha1
from pitstop.checkpointing.hub.uploader import Pacing, Uploader
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.inventory import INVENTORY, Inventory
from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import CheckpointFacts
from support.forging import CONFIG, sound_files
from support.stores import START, ForgetfulStorage

OWNER, NAME = "tester", "a-run"
REPO = f"{OWNER}/{NAME}"


@dataclass(frozen=True)
class Made:
    """A commit with its whole tree."""

    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class FakeHub:
    """``before(call)`` runs ahead of each call and ``after(call)`` when it is carried out; either may raise, so that a call
    fails, or its answer is lost. ``calls`` are the names of all calls; ``histories`` the commits of each repository, oldest first.
    """

    before: Callable[[str], object] = lambda call: None
    after: Callable[[str], object] = lambda call: None
    calls: list[str] = field(default_factory=list)
    histories: dict[str, list[Made]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)

    # What the uploader asks

    def account(self) -> Account:
        self._begin("account")
        return Account(OWNER, (), True)

    def create(self, repo: str, *, private: bool) -> bool:
        self._begin("create")
        is_new = repo not in self.histories
        if is_new:
            self.put(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
            self.private[repo] = private
        self.after("create")
        return is_new

    def head(self, repo: str, revision: str = "main") -> str:
        self._begin("head")
        return self._of(repo)[-1].oid

    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]:
        self._begin("files")
        found = self._at(repo, commit).files
        return {path: RemoteFile(len(content), blob_sha1(content), None) for path, content in found.items()}

    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path:
        self._begin("download")
        files = self._at(repo, commit).files
        if path not in files:
            raise NotThere(f"{repo}/{path}")
        target = directory / path
        target.parent.mkdir(parents=True)
        target.write_bytes(files[path])
        return target

    def upload(self, repo: str, files: Mapping[str, Path | bytes], hashes: Mapping[str, str]) -> list[Any]:
        self._begin("upload")
        self._of(repo)
        additions = client.checked_additions(files, hashes)
        self.after("upload")
        return [(path, content if isinstance(content, bytes) else content.read_bytes()) for path, content in files.items()][
            : len(additions)
        ]

    def commit(self, repo: str, additions: Sequence[Any], deletions: Sequence[str], message: str, parent: str) -> str:
        self._begin("commit")
        tip = self._of(repo)[-1]
        if tip.oid != parent:
            raise Conflict("A commit has happened since. Please refresh and try again.")
        for directory in deletions:
            assert any(path.startswith(f"{directory}/") for path in tip.files), f"there is no folder {directory}"
        kept = {path: content for path, content in tip.files.items() if path.split("/")[0] not in deletions}
        oid = self.put(repo, {**kept, **dict(additions)}, message)
        self.after("commit")
        return oid

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        self.before(call)

    def _of(self, repo: str) -> list[Made]:
        if repo not in self.histories:
            raise NotThere(f"{repo} is not on the Hub, or the token may not see it")
        return self.histories[repo]

    def _at(self, repo: str, commit: str) -> Made:
        return next(made for made in self._of(repo) if made.oid == commit)

    # Behind the scenes

    def put(self, repo: str, files: Mapping[str, bytes], title: str = "initial commit") -> str:
        """Make a commit whose tree is ``files``."""
        history = self.histories.setdefault(repo, [])
        oid = hashlib.sha1(f"{repo} {len(history)} {title}".encode()).hexdigest()
        history.append(Made(oid, title, dict(files)))
        return oid

    def change(self, repo: str, **files: bytes) -> None:
        """What somebody else commits; ``README_md`` stands for README.md."""
        self.put(repo, {**self.tree(repo), **{name.replace("_", "."): content for name, content in files.items()}}, "by hand")

    def tree(self, repo: str = REPO) -> dict[str, bytes]:
        """The newest tree."""
        return self.histories[repo][-1].files

    def inventory(self, repo: str = REPO) -> Inventory:
        """What the repository says of itself."""
        return Inventory.from_bytes(self.tree(repo)[INVENTORY], INVENTORY)

    def steps(self, repo: str = REPO) -> list[int]:
        """The steps of the checkpoints in the newest tree."""
        return sorted({int(path.split("/")[0].split("-")[1]) for path in self.tree(repo) if path.startswith("checkpoint-")})

    def titles(self, repo: str = REPO) -> list[str]:
        """What its commits say, without the first one."""
        return [made.title for made in self.histories[repo][1:]]


class Nth:
    """Acts at the ``number``-th call (from 1) of ``name``, of ``times`` in a row; without a name at any call."""

    def __init__(self, name: str | None, number: int, act: Callable[[], object], times: int = 1) -> None:
        self.name, self.number, self.act, self.times, self.seen = name, number, act, times, 0

    def __call__(self, call: str) -> None:
        if self.name in (None, call):
            self.seen += 1
            if self.number <= self.seen < self.number + self.times:
                self.act()


def raising(error: Exception) -> Callable[[], object]:
    """An action that raises ``error``."""

    def act() -> None:
        raise error

    return act


def lost(call: str, number: int = 1) -> Nth:
    """For ``FakeHub.after``: the answer of one call is lost."""
    return Nth(call, number, raising(Unavailable("the line was cut")))


class Clock:
    """Time that passes only when told. Seconds."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_run(base_dir: Path, losses: Mapping[int, float | None] | None = None, **metadata: Any) -> RunDirectory:
    """A run named a-run with a checkpoint for each step of ``losses``, to be pushed."""
    run = create_run(base_dir, name=NAME, config=CONFIG, metadata={"model": "owner/name", **metadata}, storage=ForgetfulStorage())
    for step, loss in ({1: 0.9, 2: 0.1, 3: 0.8} if losses is None else losses).items():
        add(run, step, loss)
    run.logs_dir.mkdir(exist_ok=True)
    run.metrics_path.write_text("".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 10)))
    send_to(run)
    return run


def add(
    run: RunDirectory,
    step: int,
    loss: float | None = None,
    *,
    name: str | None = None,
    now: datetime | None = None,
    files: Mapping[str, bytes] | None = None,
    line: int = 0,
) -> CheckpointInfo:
    """Save a checkpoint whose adapter is that of ``step`` on the ``line``-th line of the run."""
    weights = f"adapter of step {step}, line {line}".encode()
    return run.store.write(
        name or layout.step_name(step),
        {**sound_files(), layout.ADAPTER_WEIGHTS: weights, **(files or {})},
        CheckpointFacts(
            step=step,
            epoch=step / 10,
            metrics={} if loss is None else {"val_loss": loss},
            world_size=1,
            fingerprints={"base": "b" * 64, "data": "d"},
            versions={},
            saved_at=now or START + timedelta(seconds=step),
        ),
    )


def send_to(run: RunDirectory, **destination: Any) -> None:
    """Have it pushed to this destination."""
    Outbox(run.path, run.storage).open(Destination(**destination))


def uploader(run: RunDirectory, hub: Any, clock: Clock | None = None, commits_per_hour: int = 100) -> Uploader:
    """A new uploader, as a process that was just started has it."""
    return Uploader(RunDirectory(run.path, run.storage), hub, Pacing(0.05, commits_per_hour), clock or Clock())


def push_all(pusher: Uploader, *, finished: bool = False) -> list[tuple[str, ...]]:
    """Commit until nothing is left; the names in each commit."""
    made = []
    while (done := pusher.push_next(finished=finished)) is not None:
        made.append(done.names)
        assert len(made) < 30, f"it does not end: {made}"
    return made
