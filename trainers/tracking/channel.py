"""The way to one tracker. Whatever that does - hang, fail, take its time -, the training does not wait for it."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pitstop.configs.errors import first_line
from pitstop.trainers.tracking.tracker import RunTracker, shown

MOST_WAITING = 10_000
"""Entries that wait for a tracker at most; the oldest are dropped then."""

MOST_TRIES = 3
LONGEST_PAUSE_S = 60.0
_FIRST_PAUSE_S = 1.0
_HOPELESS = (TypeError, ValueError, AttributeError)  # the entry's own fault: it would fail again


@dataclass
class _Entry:
    call: Callable[[], Any]
    tries: float  # that are left


class Channel:
    """Calls the methods of ``tracker`` one after the other on a thread of its own.

    An entry that fails is tried again, ever more rarely, and the later ones wait behind it; ``warn`` hears of it once. Rows
    are tried until they go through, anything else only some times: it may fail by itself, where rows would not.
    """

    def __init__(self, tracker: RunTracker, warn: Callable[[str], None]) -> None:
        self.tracker, self.warn = tracker, warn
        self.dropped = 0
        self._changed = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._opened = self._closing = self._ended = False
        self._failure: BaseException | None = None
        self._status = ""
        self._warned = False
        # A daemon: a tracker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"pitstop-{tracker.name}", daemon=True)

    def open(self, timeout_s: float) -> None:
        """Start the tracker. Raises what it raises, and ``TimeoutError``."""
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._ended, timeout_s)
            if self._failure is not None:
                raise self._failure
            if not self._opened:
                self._closing = True
                self.tracker.abandon()
                raise TimeoutError(f"no answer within {timeout_s:.0f} s")

    def put_row(self, values: Mapping[str, float], step: int) -> None:
        """Have a row logged, after all that was put before. Never waits."""
        self._put(_Entry(partial(self.tracker.log, values, step), math.inf))

    def put(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Have ``method(*arguments)`` called, after all that was put before. Never waits."""
        self._put(_Entry(partial(method, *arguments), MOST_TRIES))

    def _put(self, entry: _Entry) -> None:
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(entry)
            self._changed.notify_all()

    def close(self, status: str, timeout_s: float) -> int:
        """Send what waits, finish the tracker's run as ``status``, and give up after ``timeout_s``; returns what is lost."""
        with self._changed:
            self._status, self._closing = status, True
            self._changed.notify_all()
            ended = self._changed.wait_for(lambda: self._ended, timeout_s)
            lost = self.dropped + len(self._waiting)
        if not ended:
            self.tracker.abandon()
        return lost

    # On the thread

    def _work(self) -> None:
        try:
            self.tracker.start()
            with self._changed:
                self._opened = True
                self._changed.notify_all()
            self._deliver_all()
            if self._status:
                self._try(partial(self.tracker.finish, self._status))
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for the tracker to open
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _deliver_all(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while (entry := self._next()) is not None:
            problem = self._try(entry.call)
            entry.tries -= 1
            if problem is None or entry.tries <= 0 or isinstance(problem, _HOPELESS):
                self._done_with(entry, lost=problem is not None)
                pause_s = _FIRST_PAUSE_S
                continue
            self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _next(self) -> _Entry | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting[0] if self._waiting else None

    def _try(self, call: Callable[[], Any]) -> Exception | None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a tracker may raise anything, and training goes on
            self._tell(error)
            return error
        return None

    def _tell(self, error: Exception) -> None:
        if not self._warned:
            reason = f"{type(error).__name__}: {first_line(error)}"
            self.warn(
                f"{self.tracker.name} does not take what is logged ({shown(reason)}). Training goes on without waiting for it."
            )
        self._warned = True

    def _done_with(self, entry: _Entry, *, lost: bool) -> None:
        with self._changed:
            if self._waiting and self._waiting[0] is entry:  # else it was dropped meanwhile, and counted
                self._waiting.popleft()
            self.dropped += lost

    def _pause(self, seconds: float) -> None:
        """Wait before the next try; from the end of training on, only a little."""
        with self._changed:
            if self._closing:
                self._changed.wait(_FIRST_PAUSE_S)
            else:
                self._changed.wait_for(lambda: self._closing, seconds)
