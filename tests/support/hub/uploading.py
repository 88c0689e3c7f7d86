"""Pushing a run in a child that may be killed at any moment; called in a process that takes the look-alike for the Hub."""

from __future__ import annotations

import os
import signal
import time
import traceback
from pathlib import Path
from typing import Any

from pitstop.checkpointing.hub.client import HubClient
from pitstop.checkpointing.hub.pacing import Backoff
from pitstop.checkpointing.hub.pump import pump
from pitstop.checkpointing.hub.uploader import Pacing, Uploader
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.stores import ForgetfulStorage

RETRY_S = 0.01
SAVED_ALL = "saved-all"
"""Lies in the run's ``hub`` directory once no checkpoint comes after those that are there."""


class _Here:
    """Waits for real; the end has come when the file ``SAVED_ALL`` is there."""

    def __init__(self, run: Path) -> None:
        self.mark = run / "hub" / SAVED_ALL

    @property
    def ending(self) -> bool:
        return self.mark.exists()

    finished = ending

    def wait(self, seconds: float | None) -> bool:
        time.sleep(0.005 if seconds is None else min(seconds, 0.1))
        return True

    def pushed(self, commit: Any) -> None:
        pass

    def trouble(self, reason: str, wait_s: float) -> None:
        print(reason)

    def spoilt(self, error: Any) -> None:
        raise error

    def stopped(self, error: Any) -> None:
        raise error


def push(path: str, kill_after_s: float | None = None, timeout: float = 60.0) -> int:
    """Push the run to its end in a forked child, which is killed ``kill_after_s`` after it began; its exit code."""
    import matplotlib.figure  # noqa: F401 - imported once, for all children
    from huggingface_hub import HfApi, hf_hub_download  # noqa: F401

    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if _push(Path(path)) else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + (timeout if kill_after_s is None else kill_after_s)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGKILL
        time.sleep(0.003)


def _push(path: Path) -> bool:
    run = RunDirectory(path, ForgetfulStorage())
    uploader = Uploader(run, HubClient(), Pacing(RETRY_S, 1000))
    here = _Here(path)
    with uploader.outbox.alone(5.0):
        return pump(uploader, Backoff(RETRY_S), here, here)
