"""``pitstop`` in children forked from this process, which has torch and transformers imported already.

A fresh interpreter spends seconds on imports; a fork has them at once, so that training can be killed and resumed dozens
of times. The parent must never compute with torch: a forked OpenMP pool would hang.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: the signal that killed it) and all it printed."""

    code: int
    output: str


class Child:
    """A forked child that runs ``pitstop ARGUMENTS``, after ``prepare()`` if given."""

    def __init__(self, *arguments: object, prepare: Callable[[], None] | None = None) -> None:
        self._output = Path(tempfile.mkstemp(suffix=".out")[1])
        self.pid = os.fork()
        if self.pid == 0:
            _run([str(a) for a in arguments], prepare, self._output)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Return once it has printed ``text``."""
        deadline = time.monotonic() + timeout
        while text not in self.output():
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output()}"
            time.sleep(0.01)

    def wait(self) -> Ended:
        """Wait for its end."""
        _, status = os.waitpid(self.pid, 0)
        output = self.output()
        self._output.unlink()
        return Ended(os.waitstatus_to_exitcode(status), output)


def pitstop(*arguments: object, prepare: Callable[[], None] | None = None) -> Ended:
    """Run ``pitstop ARGUMENTS`` in a forked child to its end."""
    return Child(*arguments, prepare=prepare).wait()


def kill_at_step(step: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Makes the child send itself a signal at the end of optimizer step ``step``, before anything is logged or saved."""

    def prepare() -> None:
        from pitstop.trainers.loop import Loop

        original = Loop._step

        def stepping(self: Loop) -> None:
            original(self)
            if self.progress.step == step:
                os.kill(os.getpid(), number)

        Loop._step = stepping  # type: ignore[method-assign]

    return prepare


def _run(arguments: list[str], prepare: Callable[[], None] | None, output: Path) -> None:
    code = 99
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        import torch

        torch.set_num_threads(1)
        from pitstop.cli.main import main

        if prepare is not None:
            prepare()
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
