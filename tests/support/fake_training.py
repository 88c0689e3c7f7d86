"""A training whose engine counts instead of computing, for tests of what stands around the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state.snapshot import Snapshot
from pitstop.configs.load import load_settings, settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.loop.engine import StepStats
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.machine.hardware import Hardware
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.sft import SftTask
from pitstop.trainers.tracking.tracking import Tracking
from pitstop.trainers.training.building import BaseOnDisk, Built
from pitstop.trainers.training.inputs import Inputs
from pitstop.trainers.training.prepare import Prepared
from support.displays import Lines
from support.new_runs import start

CPU = torch.device("cpu")


class OneNumber:
    """Stands for the weights: a file that says after how many steps it was copied."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def take(self) -> Snapshot:
        return Snapshot({layout.ADAPTER_WEIGHTS: memoryview(b"weights of step %d" % self.engine.steps)}, {})


class FakeEngine:
    """Counts steps. ``at_step`` is called before each with its number, and may raise; ``fits`` is the largest micro-batch that fits."""

    ema = None
    device = CPU

    def __init__(self, *, at_step: Callable[[int], None] = lambda step: None, fits: int = 1 << 10) -> None:
        self.steps, self.at_step, self.fits = 0, at_step, fits
        self.shapes: list[int] = []
        self.model = torch.nn.Linear(3, 2)
        self.raw_optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        self.names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        self.trained = SimpleNamespace(buffer=lambda *, pinned: OneNumber(self))
        self.accelerator = SimpleNamespace(
            scaler=None, process_index=0, num_processes=1, wait_for_everyone=lambda: None, autocast=contextlib.nullcontext
        )

    def train_step(self, data: Any, ids: Any, shape: Any, learning_rate: float, *, recover: bool = False) -> StepStats | None:
        if shape.batch_size > self.fits:
            if recover:
                return None
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        self.at_step(self.steps + 1)
        self.steps += 1
        self.shapes.append(shape.batch_size)
        return StepStats(2.0 * len(ids), len(ids), 1.0)

    def evaluate(self, data: Any, batch_size: int, give_up: Callable[[], bool], *, recover: bool = False) -> dict[str, float]:
        return {"val_loss": 1.0 / (1 + self.steps)}

    def scoring(self, tokenizer: Any, settings: Any, give_up: Callable[[], bool]) -> Any:
        return SimpleNamespace(limit=settings.score_examples)

    def evaluated_weights(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class FakePusher:
    """An uploader that notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self) -> None:
        self.calls.append("start")

    def check_account(self) -> None:
        self.calls.append("check_account")

    def open(self, run: RunDirectory) -> None:
        self.calls.append("open")

    def wake(self) -> None:
        self.calls.append("wake")

    def finish(self, *, completed: bool) -> None:
        self.calls.append(("finish", completed))

    def close(self) -> None:
        self.calls.append("close")

    def summary(self) -> dict[str, Any]:
        return {"repo": "me/a-run", "left": []}


def settings_with(**flags: Any) -> Settings:
    """Settings of a small training; ``training__epochs=3`` sets ``training.epochs``."""
    defaults = {
        "model.id": "tiny",
        "data.train": ["train.jsonl"],
        "training.epochs": 2,
        "training.batch_size": 2,
        "training.gradient_accumulation_steps": 1,
    }
    values = {path.replace("__", "."): value for path, value in flags.items()}
    return load_settings(flags={**defaults, **values}, environ={}).settings


def dataset(examples: int = 4) -> Dataset:
    """Examples of three tokens, the last of which is learnt."""
    learnt = np.array([False, False, True])
    return Dataset(
        [Example(np.arange(3, dtype=np.int32) + i, learnt) for i in range(examples)],
        max_length=8,
        packing=False,
        counts=Counts(
            records=examples, used=examples, too_long=0, bad=0, bad_reasons=(), tokens=3 * examples, supervised_tokens=examples
        ),
    )


def hardware(engine: FakeEngine, *, is_main: bool = True) -> Hardware:
    """The processor, in float32."""
    engine.accelerator.is_main_process = is_main
    return Hardware(CPU, Precision(torch.float32, "no"), engine.accelerator, {"versions": {"torch": "1"}, "threads": 1})


def inputs_of(settings: Settings, *, evaluates: bool = False, examples: int = 4) -> Inputs:
    """Data of that many examples for the task sft."""
    task = SftTask(SimpleNamespace(eos_token_id=1, chat_template=None), settings)
    source = ModelSource("tiny", Path("tiny"), None)
    return Inputs(source, task.tokenizer, task, dataset(examples), dataset(2) if evaluates else None)


def prepared(
    base_dir: Path,
    *,
    engine: FakeEngine | None = None,
    is_main: bool = True,
    evaluates: bool = False,
    display: Lines | None = None,
    fields: Mapping[str, Any] | None = None,
    **flags: Any,
) -> Prepared:
    """A training in a run of its own; ``flags`` are settings, ``fields`` those of ``Prepared``."""
    settings = settings_with(training__checkpoint__base_dir=str(base_dir), **flags)
    engine, reporter = engine or FakeEngine(), Reporter(display or Lines())
    parts: dict[str, Any] = {
        "settings": settings,
        "hardware": hardware(engine, is_main=is_main),
        "inputs": inputs_of(settings, evaluates=evaluates),
        "base": BaseOnDisk(Path("tiny"), stored=False, digest="b" * 64),
        "built": Built(engine, packing=True),  # type: ignore[arg-type]
        "reporter": reporter,
        "run": start(base_dir, config=settings_to_dict(settings)) if is_main else None,
        "progress": Progress(),
        "pusher": None,
        "tracking": Tracking(settings, reporter, is_main=is_main),
        "samples": None,
    }
    return Prepared(**{**parts, **(fields or {})})
