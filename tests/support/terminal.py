"""A command at a terminal, to type at and to read."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable

import psutil


class Terminal:
    """``pitstop …`` in a forked child with a terminal of its own."""

    def __init__(self, *words: object, prepare: Callable[[], None] = lambda: None) -> None:
        self.shown = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            self._run([str(word) for word in words], prepare)

    @staticmethod
    def _run(words: list[str], prepare: Callable[[], None]) -> None:
        code = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
            import torch

            torch.set_num_threads(1)
            from pitstop.cli.main import main

            prepare()
            code = main(words)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def until(self, text: str, seconds: float = 60) -> str:
        """What is shown from here up to ``text``."""
        seen, deadline = "", time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.shown}"
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    piece = os.read(self.descriptor, 4096).decode(errors="replace")
                except OSError as error:  # the other side is gone
                    raise AssertionError(f"it ended before {text!r}:\n{self.shown}") from error
                seen, self.shown = seen + piece, self.shown + piece
        return seen

    def ask(self, text: str, until: str) -> str:
        """Type a line, and wait for the next prompt that names ``until``."""
        os.write(self.descriptor, f"{text}\n".encode())
        return self.until(f"{until}> ")

    def wait_until_it_waits(self) -> None:
        """Python's readline overlooks a Ctrl+C that comes between its prompt and its wait for keys: faster than anybody types."""
        process, deadline = psutil.Process(self.pid), time.monotonic() + 20
        while process.status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.02)

    def close(self) -> int:
        """The exit code."""
        with_time = time.monotonic() + 20
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.descriptor)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < with_time, self.shown
            time.sleep(0.02)
