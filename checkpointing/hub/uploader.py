"""Brings a run's checkpoints to its repository, in order, each exactly once, whatever the line does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pitstop.checkpointing.card.page import PageUpdate
from pitstop.checkpointing.disk import inspection
from pitstop.checkpointing.disk.manifest import ManifestError
from pitstop.checkpointing.hub import contents
from pitstop.checkpointing.hub.client import Conflict, HubClient, NotThere, Refused, RemoteFile, Unavailable
from pitstop.checkpointing.hub.pacing import CommitBudget
from pitstop.checkpointing.hub.remote_repository import inventory_at
from pitstop.checkpointing.runs import push_records
from pitstop.checkpointing.runs.inventory import CARD, CURVE, Inventory, RemoteCheckpoint
from pitstop.checkpointing.runs.push_records import Arrived, Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError
from pitstop.naming.names import hub_id, unique

_EMPTY = {".gitattributes", CARD, "LICENSE"}
"""What a repository may hold that somebody made for a run beforehand."""

_MOST_NAMES = 50

BETWEEN_PICTURES_S = 60.0
"""The loss is drawn anew at most this often before the end of training."""


@dataclass(frozen=True)
class Pacing:
    """How patient and how frequent: see the settings ``hub.retry_s`` and ``hub.commits_per_hour``."""

    retry_s: float = 2.0
    commits_per_hour: int = 100


@dataclass(frozen=True)
class Pushed:
    """One commit that went through: the names of the checkpoints in it, whether the base went with them, and where."""

    names: tuple[str, ...]
    repo: str
    commit: str
    base: bool = False

    @property
    def description(self) -> str:
        """What went there, in words."""
        parts = [*self.names, *(["the base model"] if self.base else [])]
        return ", ".join(parts) or "the records and the adapter at the root"


class Spoilt(CheckpointError):
    """A checkpoint that is no longer what was saved, so that it is not pushed; the others are."""


class Uploader:
    """Pushes one run. The caller holds ``Outbox.alone``.

    Raises what the client raises, ``ResourceError`` where its records cannot be written, ``Spoilt`` for a checkpoint that is
    damaged, and ``CheckpointError`` where other files of the run are.
    """

    def __init__(self, run: RunDirectory, client: HubClient, pacing: Pacing, clock: Callable[[], float] = time.time) -> None:
        self.run, self.client, self.clock = run, client, clock
        self.outbox = Outbox(run.path, run.storage)
        self.budget = CommitBudget(pacing.commits_per_hour)
        self._drawn_at = clock()
        self._spoilt: set[str] = set()
        self._arrived: Arrived | None = None
        self.made = False
        """Whether the repository is new: made here."""
        self._is_compared = False  # whether ``_arrived`` has been compared with the repository, and nothing uncertain came after

    @property
    def arrived(self) -> Arrived:
        """What is on the Hub as far as we know."""
        if self._arrived is None:
            self._arrived = self.outbox.arrived()
        return self._arrived

    def destination(self) -> Destination:
        """Where the run goes. Read anew each time: a ``resume`` may change it."""
        return self.outbox.destination() or Destination()

    def waiting(self) -> list[inspection.CheckpointInfo]:
        """The run's checkpoints that are not on the Hub, oldest first; without those found damaged."""
        infos = contents.local_checkpoints(self.run)
        checkpoints = [(info.name, info.step, info.saved_at.isoformat()) for info in infos]
        names = set(push_records.behind(self.arrived, checkpoints, self.destination().keep_last_n))
        return [info for info in infos if info.name in names - self._spoilt]

    def is_done(self, *, finished: bool) -> bool:
        """Whether the repository shows all that the run has; at the end of training with the best adapter at its root."""
        return not self.waiting() and not self._lacks_base() and (not finished or self.arrived.finished)

    def _lacks_base(self) -> bool:
        """Whether the base is to go there and has not: it was asked for when all else was there already."""
        return self.destination().push_base and self.arrived.base is None

    def wait_s(self) -> float:
        """Seconds until the next commit may be made; 0 where there is nothing to commit."""
        if not self.waiting():
            return 0.0
        time_s = self.clock()
        if any(moment > time_s for moment in self.arrived.commits_at):  # the clock was set back: they happened by now
            self._arrived = replace(self.arrived, commits_at=tuple(self.budget.recent(self.arrived.commits_at, time_s)))
        return self.budget.wait_s(self.arrived.commits_at, time_s)

    def prepare(self) -> str:
        """Find or make the repository and learn what it holds; returns its id. Nothing is done twice."""
        asked_for = self.destination().repo
        if asked_for is not None and self.arrived.repo is not None and self.arrived.repo.lower() != asked_for.lower():
            # Start afresh: what the former repository holds does not count in the new one. It stays as it is.
            self._arrived = Arrived(uid=self.arrived.uid, commits_at=self.arrived.commits_at)
            self._is_compared = False
        if self._is_compared and self.arrived.repo:
            return self.arrived.repo
        if self.arrived.repo is not None:
            self._open_ours(self.arrived.repo)
        else:
            self._choose()
        self._is_compared = True
        assert self.arrived.repo is not None
        return self.arrived.repo

    def _open_ours(self, repo: str) -> None:
        try:
            head = self.client.head(repo)
        except NotThere:
            self.made = self.client.create(repo, private=self.destination().private)  # somebody deleted it: all is pushed again
            head = self.client.head(repo)
        if head == self.arrived.head:
            return
        remote = self._inventory(repo, head)
        if remote is None or self._is_ours(remote):
            self._adopt(repo, head, remote)
        elif self.destination().repo is None and not self.arrived.pushed:
            self._choose()  # a run of the same name on another machine was quicker
        else:
            raise Refused(f"{repo} holds another run by now ({remote.name})", hint="give another one with --hub-repo")

    def _choose(self) -> None:
        """A repository for a run that has none: the one that was asked for, or one with the run's name that is free."""
        destination = self.destination()
        if destination.repo is not None:
            if not self._take(destination.repo, destination):
                raise Refused(
                    f"{destination.repo} is taken: it holds something else than this run",
                    hint="give another one with --hub-repo, or leave it out for one with the run's name",
                )
            return
        owner = destination.username or self.client.account().name
        used_names: set[str] = set()
        while len(used_names) < _MOST_NAMES:
            name = unique(self.run.name, used_names.__contains__)
            if self._take(hub_id(owner, name), destination):
                return
            used_names.add(name)
        raise Refused(f"{_MOST_NAMES} repositories named like {self.run.name} hold other runs", hint="give one with --hub-repo")

    def _take(self, repo: str, destination: Destination) -> bool:
        """Whether ``repo`` is ours from now on: made just now, empty, or this run's already."""
        self.made = self.client.create(repo, private=destination.private)
        head = self.client.head(repo)
        try:
            remote = self._inventory(repo, head)
        except ManifestError:  # a file of this name that we have not written
            return False
        if remote is None and not self.client.files(repo, head).keys() <= _EMPTY:
            return False
        if remote is not None and not self._is_ours(remote):
            return False
        self._adopt(repo, head, remote)
        return True

    def _is_ours(self, remote: Inventory) -> bool:
        """By the id that our records have; where those are lost, by a checkpoint that both hold, byte for byte."""
        if remote.uid == self.arrived.uid:
            return True
        if self.arrived.pushed or remote.name != self.run.name:
            return False
        entries = list(remote.checkpoints.values())
        return any(contents.entry_of(info) in entries for info in self.run.store.list())

    def _adopt(self, repo: str, head: str, remote: Inventory | None) -> None:
        """Take what the repository says for what is there."""
        files = self.client.files(repo, head) if remote is not None else {}
        card = self._remote_card(files, remote) if remote is not None else None
        if remote is None:
            remote = Inventory(self.arrived.uid, self.run.name)
        self._record(replace(self.arrived.holding(remote), repo=repo, head=head, card=card, curve=CURVE in files))

    def _remote_card(self, files: Mapping[str, RemoteFile], remote: Inventory) -> str | None:
        """Git's hash of our model card; empty where somebody has written another one since: it stays then."""
        ours, card = self.arrived, files.get(CARD)
        if card is None or ours.card == "":
            return ours.card
        theirs = ours.holding(remote)
        ours_was_last = (theirs.pushed, theirs.root, theirs.finished) == (ours.pushed, ours.root, ours.finished)
        edited = ours_was_last and ours.card not in (None, card.oid)
        return "" if edited else card.oid

    def _inventory(self, repo: str, head: str) -> Inventory | None:
        """What the repository says that it holds at ``head``; None where it says nothing."""
        try:
            return inventory_at(self.client, repo, head)
        except NotThere:
            return None

    def push_next(self, *, finished: bool) -> Pushed | None:
        """Make the next commit; None when nothing is left to push. ``finished``: no checkpoint comes after those of now."""
        repo = self.prepare()
        waiting = self.waiting()
        count = self.budget.together(len(waiting), self.arrived.commits_at, self.clock())
        batch = waiting[:count]
        last = finished and len(batch) == len(waiting)
        if not batch and not (last and not self.arrived.finished) and not self._lacks_base():
            return None
        arrived = self.arrived
        entries = {directory: RemoteCheckpoint.from_dict(dict(value)) for directory, value in arrived.pushed.items()}
        remote = Inventory(arrived.uid, self.run.name, entries, {}, arrived.base, arrived.root, arrived.finished)
        page = PageUpdate(arrived.card != "", self._draws(last), arrived.curve)
        try:
            commit = contents.build(self.run, batch, remote, self.destination(), repo=repo, finished=last, page=page)
            return self._commit(repo, commit)
        except CheckpointError as error:
            raise self._explained(batch, error) from error

    def _explained(self, batch: Sequence[inspection.CheckpointInfo], error: CheckpointError) -> Exception:
        """Which of ``batch`` is to blame; that one is not tried again by this uploader."""
        for info in batch:
            try:
                inspection.verify(info.path)
            except CheckpointError as problem:
                if not info.path.exists():
                    return Unavailable(f"{info.name} was removed meanwhile", 0.0)
                self._spoilt.add(info.name)
                return Spoilt(problem.message, hint=f"pitstop verify {self.run.label} looks at all of them")
        return error

    def _draws(self, last: bool) -> bool:
        """Whether to draw the loss anew: at the end, and now and then on the way."""
        if not last and self.clock() < self._drawn_at + BETWEEN_PICTURES_S:
            return False
        self._drawn_at = self.clock()
        return True

    def _commit(self, repo: str, commit: contents.Commit) -> Pushed:
        parent = self.arrived.head
        assert parent is not None
        try:
            additions = self.client.upload(repo, commit.files, commit.hashes)
            head = self.client.commit(repo, additions, commit.deletions, commit.message, parent)
        except (Unavailable, Conflict):
            self._is_compared = False  # it may have gone through, or somebody else has committed: look before trying again
            raise
        time_s, inventory, former = self.clock(), commit.inventory, self.arrived
        commits_at = (*self.budget.recent(former.commits_at, time_s), time_s)
        card, curve = commit.card or former.card, former.curve or CURVE in commit.files
        arrived = former.holding(inventory)
        self._record(replace(arrived, head=head, card=card, curve=curve, problem=None, commits_at=commits_at))
        names = tuple(str(entry["name"]) for key, entry in arrived.pushed.items() if former.pushed.get(key) != entry)
        return Pushed(names, repo, head, base=former.base != inventory.base)

    def _record(self, arrived: Arrived) -> None:
        self.outbox.record(arrived)
        self._arrived = arrived

    def stopped(self, problem: str | None) -> None:
        """Put on record why pushing has come to a stop, for ``list-runs``; None when it goes on."""
        if self.arrived.problem != problem:
            self._record(replace(self.arrived, problem=problem))
