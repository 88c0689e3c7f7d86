"""Interrupting a training, in a forked child, at a chosen moment; and noting which batches it trained on.

What is patched is the child's own copy of the code: ``prepare`` of ``support.forked`` calls these before training starts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.stores import OPERATIONS

PHASES = ("before the step", "in the step", "after the step", "at the log", "in the evaluation", "in a save")
SAVING = ("before the gathering", "beside the commit")  # for a process that writes nothing itself
LONGEST_SAVE = 45
"""About as many I/O operations as a save with its pointers, retention and metadata makes."""


@dataclass(frozen=True)
class Interruption:
    """Signals that a training sends itself at ``phase`` of step ``step`` (counted from 1), or as soon as that comes later.

    ``operation`` is the I/O operation, counted from the end of that step, before which it happens for "in a save"; the
    second of two signals comes ``delay_s`` after the first.
    """

    step: int
    phase: str
    signals: tuple[signal.Signals, ...] = (signal.SIGKILL,)
    operation: int = 0
    delay_s: float = 0.0

    @classmethod
    def at_random(cls, rng: random.Random, step: int, *signals: signal.Signals) -> Interruption:
        """Some phase of ``step``."""
        return cls(step, rng.choice(PHASES), signals, rng.randrange(LONGEST_SAVE), rng.uniform(0, 0.05))

    def __str__(self) -> str:
        names = "+".join(number.name for number in self.signals)
        return f"{names} {self.phase} {self.step}" + (f", operation {self.operation}" if self.phase == "in a save" else "")

    def arm(self) -> None:
        """Patch this process."""
        _Armed(self).patch()


def fired_in_step(output: str) -> int:
    """The step that was under way, or done last, when an interruption came; from what the child printed."""
    found = re.search(r"\[SIG.*: in step (\d+)\]", output)
    assert found is not None, output
    return int(found[1])


class _Armed:
    def __init__(self, plan: Interruption) -> None:
        self.plan = plan
        self.fired = False
        self.done = self.under_way = 0
        self.evaluating = False
        self.operations = 0
        self.lock = threading.Lock()

    def fire(self) -> None:
        with self.lock:
            if self.fired:
                return
            self.fired = True
        os.write(2, f"[{self.plan}: in step {self.under_way}]\n".encode())
        first, *more = self.plan.signals
        if more:
            threading.Thread(target=self._later, args=(more,), daemon=True).start()
        os.kill(os.getpid(), first)

    def _later(self, signals: list[signal.Signals]) -> None:
        for number in signals:
            time.sleep(self.plan.delay_s)
            if signal.getsignal(number) is not signal.default_int_handler:  # training is over already
                os.kill(os.getpid(), number)

    def patch(self) -> None:
        from pitstop.checkpointing.disk.metrics_log import MetricsLog
        from pitstop.checkpointing.disk.storage import LocalStorage
        from pitstop.trainers.loop.engine import Engine
        from pitstop.trainers.loop.loop import Loop
        from pitstop.trainers.models.loss import TokenObjective
        from pitstop.trainers.tasks.diffusion.objective import DenoisingObjective
        from pitstop.trainers.training.saver import Saver

        step = self.plan.step
        wrap(Loop, "step", self._stepping)
        wrap(Saver, "save", self._saving)
        wrap(Engine, "_update", self._when("in the step", lambda: self.under_way >= step))
        wrap(Engine, "evaluate", self._evaluating)
        for objective in (TokenObjective, DenoisingObjective):
            wrap(objective, "evaluated", self._when("in the evaluation", lambda: self.evaluating and self.done >= step))
        wrap(MetricsLog, "append", self._when("at the log", lambda: self.done >= step))
        for name in OPERATIONS:
            wrap(LocalStorage, name, self._when("in a save", self._operation_due))

    def _when(self, phase: str, due: Callable[[], bool]) -> Callable[..., Any]:
        def around(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
            if self.plan.phase == phase and due():
                self.fire()
            return original(*arguments, **named)

        return around

    def _stepping(self, original: Callable[..., Any], loop: Any) -> None:
        self.under_way = loop.progress.step + 1
        if self.plan.phase == "before the step" and self.under_way >= self.plan.step:
            self.fire()
        original(loop)
        self.done = loop.progress.step
        if self.plan.phase == "after the step" and self.done >= self.plan.step:
            self.fire()

    def _evaluating(self, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self.evaluating = True
        try:
            return original(*arguments, **named)
        finally:
            self.evaluating = False

    def _saving(self, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if self.done >= self.plan.step and self.plan.phase == "before the gathering":
            self.fire()
        if self.done >= self.plan.step and self.plan.phase == "beside the commit":
            threading.Timer(self.plan.delay_s, self.fire).start()
        return original(*arguments, **named)

    def _operation_due(self) -> bool:
        if self.done < self.plan.step:
            return False
        self.operations += 1
        return self.operations > self.plan.operation


def wrap(kind: type, name: str, around: Callable[..., Any]) -> None:
    """Let ``around(original, self, …)`` take the place of a method."""
    original = getattr(kind, name)

    @functools.wraps(original)
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return around(original, self, *arguments, **named)

    setattr(kind, name, method)


def slow_saves(delay_s: float) -> None:
    """Let each save begin to write only after ``delay_s``, when training beside it has gone on and changed everything."""
    from pitstop.trainers.training.saver import Saver

    def committing(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        time.sleep(delay_s)
        return original(*arguments, **named)

    wrap(Saver, "commit", committing)


def note_batches(path: Path) -> None:
    """Append a line for each batch trained on to ``path``: step, ids of its sequences, and a digest of their tokens or pixels."""
    from pitstop.trainers.data.images.data import ImageData
    from pitstop.trainers.loop.engine import Engine
    from pitstop.trainers.loop.loop import Loop

    under_way = {"step": 0}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def stepping(original: Callable[..., Any], loop: Any) -> None:
        under_way["step"] = loop.progress.step + 1
        original(loop)

    def training(original: Callable[..., Any], engine: Any, data: Any, step_ids: Any, *rest: Any, **named: Any) -> Any:
        if isinstance(data, ImageData):
            content = data.pixels(step_ids).tobytes()
        else:
            content = b"|".join(example.input_ids.tobytes() for example in data.sequence_examples(step_ids))
        digest = hashlib.sha256(content).hexdigest()
        line = {**under_way, "ids": [int(number) for number in step_ids], "content": digest}
        os.write(descriptor, f"{json.dumps(line)}\n".encode())
        return original(engine, data, step_ids, *rest, **named)

    wrap(Loop, "step", stepping)
    wrap(Engine, "train_step", training)


def read_batches(path: Path) -> list[dict[str, Any]]:
    """What ``note_batches`` wrote, in the order of time; a step that was done again is there again."""
    return [json.loads(line) for line in path.read_text().splitlines()]
