"""What a run's ``hub`` directory says of it, for tests without a Hub."""

from __future__ import annotations

from typing import Any

from pitstop.checkpointing.runs.inventory import RemoteCheckpoint
from pitstop.checkpointing.runs.push_records import Arrived, Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.stores import ForgetfulStorage

REPO = "user/a-run"


def pushed(run: RunDirectory, *names: str, repo: str | None = REPO, **more: Any) -> Outbox:
    """Have ``run`` pushed to ``repo``, where its checkpoints ``names`` have arrived; ``more`` of ``Arrived``."""
    outbox = Outbox(run.path, ForgetfulStorage())
    outbox.open(Destination())
    entries = [RemoteCheckpoint.of(run.store.resolve(name), "0" * 64) for name in names]
    outbox.record(Arrived(repo=repo, pushed={entry.directory: entry.to_dict() for entry in entries}, **more))
    return outbox
