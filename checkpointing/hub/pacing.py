"""When to ask the Hub again, and how many commits an hour it gets from us."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pitstop.checkpointing.hub.client import MAX_WAIT_S

HOUR_S = 3600.0
MOST_TOGETHER = 16
"""Checkpoints that go in one commit at most."""


class Backoff:
    """Exponential backoff with equal jitter (Brooker 2015, "Exponential Backoff And Jitter"), capped at ``MAX_WAIT_S``."""

    def __init__(self, first_s: float, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._first_s, self._draw = first_s, draw
        self.failures = 0

    def next_s(self, asked_s: float | None = None) -> float:
        """Seconds to wait after one more failure; never less than the server ``asked_s`` for, never more than the cap."""
        ceiling = min(MAX_WAIT_S, self._first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        drawn = self._draw(ceiling / 2, ceiling)
        return min(MAX_WAIT_S, max(drawn, asked_s or 0.0))

    def reset(self) -> None:
        """A request has gone through."""
        self.failures = 0


class CommitBudget:
    """Keeps within ``per_hour`` commits: the first half as they come, the second half spread over what is left of the hour."""

    def __init__(self, per_hour: int) -> None:
        self.per_hour = per_hour

    def recent(self, commits_at: Sequence[float], time_s: float) -> list[float]:
        """The commits of the last hour; times ahead of ``time_s`` (the clock was set back) count as of then."""
        return [min(moment, time_s) for moment in commits_at if moment > time_s - HOUR_S]

    def wait_s(self, commits_at: Sequence[float], time_s: float) -> float:
        """Seconds until the next commit may be made."""
        recent = self.recent(commits_at, time_s)
        if not self._is_short(recent):
            return 0.0
        remaining = self.per_hour - len(recent)
        if remaining <= 0:  # more than allowed, perhaps: the limit may have been another one
            return recent[-self.per_hour] + HOUR_S - time_s
        until_oldest_leaves = recent[0] + HOUR_S - time_s
        return max(0.0, recent[-1] + until_oldest_leaves / remaining - time_s)

    def together(self, waiting: int, commits_at: Sequence[float], time_s: float) -> int:
        """How many of the ``waiting`` checkpoints go in the next commit: one each, unless they come faster than we may commit."""
        recent = self.recent(commits_at, time_s)
        if self._is_short(recent) or waiting > self.per_hour - len(recent):
            return min(waiting, MOST_TOGETHER)
        return min(waiting, 1)

    def _is_short(self, recent: Sequence[float]) -> bool:
        return len(recent) >= max(1, self.per_hour // 2)
