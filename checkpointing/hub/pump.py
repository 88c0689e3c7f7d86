"""Keeps pushing a run until there is nothing left, through outages, within the Hub's limits."""

from __future__ import annotations

from typing import Protocol

from pitstop.checkpointing.hub.client import Conflict, Offline, Unavailable
from pitstop.checkpointing.hub.pacing import Backoff
from pitstop.checkpointing.hub.uploader import Pushed, Spoilt, Uploader
from pitstop.configs.errors import PitstopError, ResourceError

PATIENCE_AT_THE_END_S = 20.0
"""Longest pause between two tries once somebody waits for the end."""

_CONFLICTS_IN_A_ROW = 5


class Listener(Protocol):
    """Who is told how it goes."""

    def pushed(self, commit: Pushed) -> None:
        """A commit went through."""

    def trouble(self, reason: str, wait_s: float) -> None:
        """A try failed; the next comes after ``wait_s`` seconds."""

    def spoilt(self, error: Spoilt) -> None:
        """A checkpoint is damaged and is left out."""

    def stopped(self, error: PitstopError) -> None:
        """Pushing has ended for a reason that trying again does not change."""


class Waiter(Protocol):
    """How time passes, and whether the end has come."""

    @property
    def finished(self) -> bool:
        """Whether the training is over, so that no checkpoint comes after those of now."""

    @property
    def ending(self) -> bool:
        """Whether to return as soon as nothing is left, instead of waiting for more."""

    def wait(self, seconds: float | None) -> bool:
        """Return after ``seconds`` (None: only when there is something new to push); False: give up now."""


def pump(uploader: Uploader, backoff: Backoff, waiter: Waiter, listener: Listener) -> bool:
    """Push until the end; whether all has arrived. Errors that come again are told and put on record, not raised."""
    failures = _Failures(uploader, backoff, waiter, listener)
    while True:
        try:
            pause = _push(uploader, waiter, listener)
        except (Conflict, Unavailable, OSError, PitstopError) as error:
            pause = failures.pause_after(error)
            if failures.over:
                return False
        else:
            failures.reset()
            if pause is None and waiter.ending and uploader.is_done(finished=waiter.finished):
                return True
        if pause != 0.0 and not waiter.wait(pause):
            return False


class _Failures:
    """What to do about each kind of failure: ``pause_after`` says how long to wait, ``over`` that it is no use."""

    def __init__(self, uploader: Uploader, backoff: Backoff, waiter: Waiter, listener: Listener) -> None:
        self.uploader, self.backoff, self.waiter, self.listener = uploader, backoff, waiter, listener
        self.over = False
        self._conflicts = 0

    def reset(self) -> None:
        """Something went through."""
        self.backoff.reset()
        self._conflicts = 0

    def pause_after(self, error: Exception) -> float | None:
        """Seconds; None: until there is something new."""
        if isinstance(error, Conflict):
            self._conflicts += 1
            return self.backoff.next_s() if self._conflicts > _CONFLICTS_IN_A_ROW else 0.0
        if isinstance(error, Offline):
            self.listener.trouble(error.reason, 0.0)
            self.over = self.waiter.ending
            return None
        if isinstance(error, PitstopError) and not isinstance(error, ResourceError):  # a full disk has room again some day
            self.over = True
            try:
                self.uploader.stopped(error.message)
            except PitstopError as another:
                self.listener.stopped(another)
            self.listener.stopped(error)
            return None
        pause = self.backoff.next_s(getattr(error, "wait_s", None))
        pause = min(pause, PATIENCE_AT_THE_END_S) if self.waiter.ending else pause
        self.listener.trouble(str(error), pause)
        return pause


def _push(uploader: Uploader, waiter: Waiter, listener: Listener) -> float | None:
    """Make the next commit, if one may be made; returns how long to wait after it, None where nothing is left."""
    if pause := uploader.wait_s():
        return pause
    try:
        commit = uploader.push_next(finished=waiter.finished)
    except Spoilt as error:
        listener.spoilt(error)
        return 0.0
    if commit is None:
        uploader.stopped(None)  # what once stood in the way may have gone without leaving anything to push
        return None
    listener.pushed(commit)
    return 0.0
