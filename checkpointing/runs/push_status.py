"""How a run stands with the Hub, in a word, from its own records: for ``list-runs`` and ``show``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.checkpointing.runs.push_records import DIRECTORY, OUTBOX, STATE, Outbox, behind
from pitstop.configs.errors import CheckpointError

IN_STEP, BEHIND, FAILED = "in step", "behind", "failed"


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
