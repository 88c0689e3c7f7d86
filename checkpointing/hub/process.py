"""The uploader's own process: ``python -m pitstop.checkpointing.hub.process``, started by the training beside itself.

In a process of its own nothing that the Hub's client does can slow, block or end the training. It reads commands, one JSON
object a line, from stdin, and writes events to stdout; docs/hub.md says what they mean to a user. When stdin ends without
``finish``, whoever started it is gone: it leaves at once, and the next start finds out what arrived.

Commands: ``{"open": RUN, "retry_s": …, "commits_per_hour": …}`` · ``{"wake": true}`` · ``{"finish": COMPLETED}``.
Events: ``account``, ``ready``, ``refused``, ``unreachable``, ``pushed``, ``trouble``, ``spoilt``, ``stopped``, ``bug``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from pitstop.checkpointing.hub.client import HubClient, Offline, Unavailable
from pitstop.checkpointing.hub.pacing import Backoff
from pitstop.checkpointing.hub.priority import come_forward, stand_back
from pitstop.checkpointing.hub.pump import pump
from pitstop.checkpointing.hub.uploader import Pacing, Pushed, Spoilt, Uploader
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import PitstopError
from pitstop.configs.secrets import mask

_LOCK_PATIENCE_S = 600.0


class Commands:
    """What the training has said so far; a thread listens. Also the ``Waiter`` of the pump."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.opened: dict[str, Any] | None = None
        self.ending = False
        self.finished = False
        self._woken = False

    def listen(self) -> None:
        """Read stdin to its end."""
        for line in sys.stdin:
            self._take(json.loads(line))
        if not self.ending:
            os._exit(0)

    def _take(self, command: dict[str, Any]) -> None:
        with self._news:
            if "open" in command:
                self.opened = command
            if "finish" in command:
                self.ending, self.finished = True, bool(command["finish"])
                come_forward()
            self._woken = True
            self._news.notify_all()

    def until_opened(self) -> dict[str, Any] | None:
        """The command ``open``; None when the end comes without it."""
        with self._news:
            self._news.wait_for(lambda: self.opened is not None or self.ending)
            return self.opened

    def wait(self, seconds: float | None) -> bool:
        """Pass ``seconds``; cut short by the end, and where it is None by any news."""
        with self._news:
            ending = self.ending
            if seconds is None:
                self._news.wait_for(lambda: self._woken)
                self._woken = False
            else:
                self._news.wait_for(lambda: self.ending and not ending, timeout=seconds)
        return True


class Events:
    """Tells the training what happens. The ``Listener`` of the pump, where its methods are described."""

    def tell(self, kind: str, **values: Any) -> None:
        """One line; whoever read them may be gone."""
        try:
            sys.stdout.write(mask(json.dumps({"event": kind, **values})) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(0)

    def pushed(self, commit: Pushed) -> None:
        self.tell("pushed", names=list(commit.names), what=commit.description, repo=commit.repo, commit=commit.commit)

    def trouble(self, reason: str, wait_s: float) -> None:
        self.tell("trouble", reason=reason, wait_s=wait_s)

    def spoilt(self, error: Spoilt) -> None:
        self.tell("spoilt", message=error.message)

    def stopped(self, error: PitstopError) -> None:
        self.tell("stopped", message=error.message, hint=error.hint)


def main() -> int:
    """Serve one training."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the training decides when to end, and says so
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    stand_back()
    commands, events = Commands(), Events()
    threading.Thread(target=commands.listen, name="pitstop-commands", daemon=True).start()
    try:
        _serve(commands, events)
    except BaseException as error:  # noqa: BLE001 - the training is told, and goes on
        events.tell("bug", error=f"{type(error).__name__}: {error}", traceback="".join(traceback.format_exception(error)))
        return 1
    return 0


def _serve(commands: Commands, events: Events) -> None:
    client = HubClient()
    _check_account(client, events)
    opened = commands.until_opened()
    if opened is None:
        return
    run = RunDirectory(Path(opened["open"]))
    uploader = Uploader(run, client, Pacing(opened["retry_s"], opened["commits_per_hour"]))
    try:
        with uploader.outbox.alone(_LOCK_PATIENCE_S):
            _prepare(uploader, events)
            pump(uploader, Backoff(opened["retry_s"]), commands, events)
    except PitstopError as error:
        events.stopped(error)


def _check_account(client: HubClient, events: Events) -> None:
    try:
        account = client.account()
    except Offline as error:
        _refuse_offline(error, events)
    except Unavailable as error:
        events.tell("unreachable", reason=error.reason)
    except PitstopError as error:
        events.tell("refused", message=error.message, hint=error.hint)
    else:
        events.tell("account", name=account.name, can_write=account.can_write)


def _refuse_offline(error: Offline, events: Events) -> None:
    """No outage: it will be so for as long as this process lives."""
    events.tell("refused", message=error.reason, hint="unset HF_HUB_OFFLINE")


def _prepare(uploader: Uploader, events: Events) -> None:
    """Have the repository before the first checkpoint, so that what is wrong with it is known before the first step."""
    try:
        events.tell("ready", repo=uploader.prepare(), made=uploader.made)
    except Offline as error:
        _refuse_offline(error, events)
    except (Unavailable, OSError) as error:
        events.tell("unreachable", reason=str(error))
    except PitstopError as error:
        events.tell("refused", message=error.message, hint=error.hint)


if __name__ == "__main__":
    sys.exit(main())
