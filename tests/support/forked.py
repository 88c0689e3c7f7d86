"""``pitstop`` in children forked from this process, which has torch and transformers imported already.

A fresh interpreter spends seconds on imports; a fork has them at once, so that training can be killed and resumed dozens
of times. The parent must never compute with torch: a forked OpenMP pool would hang.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

# A collection in a child would write to every object of the parent, and with it copy all of its memory.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)

_onednn = False  # ``support.sampling`` turns it on for full counts


def use_onednn() -> None:
    """Let the children of every test compute with oneDNN, as users do."""
    global _onednn
    _onednn = True


@pytest.fixture(scope="module")
def onednn() -> Iterator[None]:
    """Children compute with oneDNN, as users do: for what depends on its bits, or on sums in bfloat16 that are as exact as its."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "_onednn", True)
        yield


def temporary_file(suffix: str) -> Path:
    """An empty file. Its descriptor is closed: thousands of children would leave the process none below 1,024, where select() ends."""
    descriptor, name = tempfile.mkstemp(suffix=suffix)
    os.close(descriptor)
    return Path(name)


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: the signal that killed it) and all it printed."""

    code: int
    output: str

    def json(self) -> Any:
        """The JSON document at the end of what it printed, behind what it said on the way."""
        assert self.code == 0, self.output
        text = f"\n{self.output}"
        return json.loads(text[text.index("\n{") :])


class Child:
    """A forked child that runs ``pitstop ARGUMENTS``, after ``prepare()`` if given."""

    def __init__(self, *arguments: object, prepare: Callable[[], None] | None = None) -> None:
        self._output = temporary_file(".out")
        self._waited_for = False
        self.pid = os.fork()
        if self.pid == 0:
            _run([str(a) for a in arguments], prepare, self._output)

    def _reap(self, options: int) -> tuple[int, int]:
        done, status = os.waitpid(self.pid, options)
        self._waited_for = done == self.pid
        return done, status

    def end(self) -> None:
        """Kill it if it still runs."""
        if not self._waited_for:  # afterwards its number may be another process's
            os.kill(self.pid, signal.SIGKILL)
            self._reap(0)

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

    def wait(self, timeout: float | None = None) -> Ended:
        """Wait for its end; with ``timeout``, in seconds, it is killed then and the test fails."""
        done, status = self._reap(0 if timeout is None else os.WNOHANG)
        deadline = time.monotonic() + (timeout or 0)
        while not done:
            if time.monotonic() > deadline:
                self.end()
                raise AssertionError(f"it did not end within {timeout} s:\n{self.output()}")
            time.sleep(0.01)
            done, status = self._reap(os.WNOHANG)
        output = self.output()
        self._output.unlink()
        return Ended(os.waitstatus_to_exitcode(status), output)


def pitstop(*arguments: object, prepare: Callable[[], None] | None = None) -> Ended:
    """Run ``pitstop ARGUMENTS`` in a forked child to its end."""
    return Child(*arguments, prepare=prepare).wait()


def two_ranks(
    *arguments: object, prepare: Sequence[Callable[[], None] | None] = (None, None), timeout: float = 60
) -> list[Ended]:
    """Run ``pitstop ARGUMENTS`` as two processes of one group, as a launcher would; ``timeout`` in seconds for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def joining(rank: int) -> Callable[[], None]:
        def join() -> None:
            from pitstop.trainers.machine import launch

            launch.AFTER_THE_CAUSE_S = 0.0  # no launcher is here to report the first that ends
            group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in group.items()}, MASTER_ADDR="127.0.0.1")
            chosen = prepare[rank]
            if chosen is not None:
                chosen()

        return join

    children = [Child(*arguments, prepare=joining(rank)) for rank in range(2)]
    try:
        return [child.wait(timeout) for child in children]
    finally:
        for child in children:
            child.end()


def kill_at_step(step: int, number: signal.Signals = signal.SIGKILL, *, saved: bool = True) -> Callable[[], None]:
    """Makes the child send itself a signal at the end of optimizer step ``step``, before anything is logged or saved.

    SIGKILL waits for the save under way, unless ``saved`` is False: on a busy machine that of the step before, which the test
    means to resume from, may not be done yet.
    """

    def prepare() -> None:
        from pitstop.trainers.loop.loop import Loop

        original = Loop.step

        def stepping(self: Loop) -> None:
            original(self)
            if self.progress.step == step:
                for thread in threading.enumerate():
                    if saved and number == signal.SIGKILL and thread.name == "pitstop-save":
                        thread.join()
                os.kill(os.getpid(), number)

        Loop.step = stepping  # type: ignore[method-assign]

    return prepare


def compute_for_tests(*, onednn: bool = False) -> None:
    """In a child: one thread, and no oneDNN, which compiles code for every new shape and takes longer for it than for a tiny model's step.

    Without it, sums in bfloat16 are slow: they are made in float32, as on a processor that lacks the instructions.
    """
    import torch

    torch.set_num_threads(1)
    torch.backends.mkldnn.set_flags(_onednn or onednn)
    if not (_onednn or onednn):
        from pitstop.trainers.machine import device

        device.processor_computes_bfloat16 = lambda: False
    _log_at_once()


def computes_bfloat16() -> bool:
    """Whether the children of this test do."""
    from pitstop.trainers.machine.device import processor_computes_bfloat16

    return _onednn and processor_computes_bfloat16()


def _log_at_once() -> None:
    """A run that is resumed within the same second would wait for the next one, so that TensorBoard reads its files in order."""
    from pitstop.trainers.tracking import tensorboard_run

    tensorboard_run.wait_for_a_later_name = lambda directory: None


def _run(arguments: list[str], prepare: Callable[[], None] | None, output: Path) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # A parent in the background, or under nohup, may ignore them, and its children with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    run_and_leave(arguments, prepare)


def run_and_leave(arguments: list[str], prepare: Callable[[], None] | None) -> NoReturn:
    """In a child: be ``pitstop ARGUMENTS``, and end with its exit code."""
    code = 99
    sys.argv = ["pitstop", *arguments]
    try:
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        compute_for_tests(onednn="plan" in arguments[:1] or "--dry-run" in arguments)  # they measure what the machine computes
        from pitstop.cli.boundary import after_output
        from pitstop.cli.main import main

        if prepare is not None:
            prepare()
        code = after_output(main(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
