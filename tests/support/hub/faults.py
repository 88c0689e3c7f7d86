"""What goes wrong on purpose: rules that spoil requests, and a limit on commits."""

from __future__ import annotations

import math
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    """A rule: which requests it spoils (``method`` and ``path`` are regular expressions), how often, and how.

    ``times`` -1 is for ever; the first ``skip`` that match pass. What it does, any of:

    - ``status`` with ``headers``, ``body`` (the message) and ``code`` (X-Error-Code) is the answer, and nothing is done;
      with a Content-Type among the headers ``body`` is sent as it is, else in JSON;
    - ``drop`` cuts the connection: ``before`` anything is read; in the ``body`` once more than ``after`` bytes came in;
      ``after`` the request was carried out, so that its answer is lost; in the ``download`` after ``after`` bytes.
      ``fin`` ends the connection in good order, without it is reset;
    - ``delay`` seconds, ``rate`` bytes a second, ``corrupt`` the first byte of the answer.
    """

    method: str = ".*"
    path: str = ""
    times: int = 1
    skip: int = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "injected fault"
    code: str | None = None
    drop: str | None = None
    after: int = 0
    fin: bool = False
    delay: float = 0.0
    rate: float = 0.0
    corrupt: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Whether the request is one of those that the rule is for."""
        return self.times != 0 and re.fullmatch(self.method, method) is not None and re.search(self.path, path) is not None

    def slow_down(self, size: int) -> None:
        """Wait as long as ``size`` bytes take at ``rate``."""
        if self.rate:
            time.sleep(size / self.rate)


class Faults:
    """The rules in force, in the order in which they were made; a request is spoiled by the first that matches."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, **rule: Any) -> Fault:
        """Put a rule in force; see ``Fault``. ``ValueError`` when it would do nothing."""
        fault = Fault(**rule)
        if not (fault.status or fault.drop or fault.delay or fault.rate or fault.corrupt):
            raise ValueError("a fault must do something: status, drop, delay, rate or corrupt")
        if fault.drop not in (None, "before", "body", "after", "download"):
            raise ValueError(f"no such place to drop the line: {fault.drop}")
        with self._lock:
            self._rules.append(fault)
        return fault

    def take(self, method: str, path: str) -> Fault | None:
        """The rule that spoils this request, used up by one."""
        with self._lock:
            for rule in self._rules:
                if not rule.matches(method, path):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.times -= 1 if rule.times > 0 else 0
                return rule
        return None

    def clear(self) -> None:
        """Let everything pass again."""
        with self._lock:
            self._rules.clear()


class CommitLimit:
    """At most ``count`` commits in any ``window_s`` seconds, over all repositories."""

    def __init__(self, count: int, window_s: float) -> None:
        self.count = count
        self.window_s = window_s
        self._made: list[float] = []
        self._lock = threading.Lock()

    def wait_s(self) -> int | None:
        """None, and one more commit counts as made; or the whole seconds after which there is room for it."""
        with self._lock:
            now = time.monotonic()
            self._made = [moment for moment in self._made if now - moment < self.window_s]
            if len(self._made) < self.count:
                self._made.append(now)
                return None
            return max(1, math.ceil(self._made[0] + self.window_s - now)) if self._made else math.ceil(self.window_s)
