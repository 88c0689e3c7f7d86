"""Processes that torch elastic starts, as forks of a launcher that is one itself: three imports of torch and transformers less."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from support.forked import run_and_leave


def forked_processes(started: Path | None = None) -> Callable[[], None]:
    """Makes a forked child, as a launcher, fork what it would start. Their ids come into ``started``, in the order of their ranks.

    Elastic, its sessions, signals and exit codes are real. What is not is the interpreter that begins, and what it is given: ``-P``.
    """

    def prepare() -> None:
        from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler

        def start(self: object, words: tuple[str, ...], environment: dict[str, str]) -> _Process:
            process = _Process(words[words.index("pitstop.cli") + 1 :], environment)
            if started is not None:
                with started.open("a") as file:
                    file.write(f"{process.pid}\n")
            return process

        SubprocessHandler._popen = start  # type: ignore[method-assign, assignment]

    return prepare


class _Process:
    """What elastic uses of a ``Popen``."""

    def __init__(self, words: tuple[str, ...], environment: dict[str, str]) -> None:
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number in (
                signal.SIGTERM,
                signal.SIGHUP,
                signal.SIGUSR1,
            ):  # the launcher passes them on; an interpreter begins without
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.clear()
            os.environ.update(environment)
            run_and_leave(list(words), None)

    def poll(self) -> int | None:
        if self._code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("pitstop", timeout)
            time.sleep(0.01)
        return code
