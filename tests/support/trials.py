"""Short real trainings to interrupt: the configurations, their uninterrupted ends, and going on until the end is reached."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.store.store import CheckpointStore
from support.forked import Ended, pitstop
from support.image_training import image_arguments
from support.interruptions import Interruption, note_batches, read_batches, slow_saves
from support.training import EXACT_FILES, WHOLE_FILES, arguments, assert_same_end

STEPS = 12
OK_CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGUSR1: 0}

_EVERY_STEP = {"save_strategy": "steps", "save_steps": 1}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "qlora, packed, accumulation": {
        **_EVERY_STEP,
        "method": "qlora",
        "packing": True,
        "gradient_accumulation_steps": 2,
        "max_steps": STEPS,
        "eval_steps": 4,
    },
    "lora, unpacked, the last step of an epoch partly filled": {
        **_EVERY_STEP,
        "method": "lora",
        "no_packing": True,
        "gradient_accumulation_steps": 5,
        "epochs": 4,
        "keep_last_n": 2,
    },
    "qlora, 8-bit optimizer, patience that runs out": {
        # The loss falls; asked for a large one, the first evaluation stays the best.
        **_EVERY_STEP,
        "method": "qlora",
        "no_packing": True,
        "optimizer": "adamw_8bit",
        "lora_rank": 64,
        "learning_rate": 1e-3,
        "eval_steps": 2,
        "mode": "max",
        "early_stopping_patience": 4,
    },
    "lora, packed, 8-bit optimizer, rows for some steps": {
        "method": "lora",
        "packing": True,
        "optimizer": "adamw_8bit",
        "lora_rank": 64,
        "learning_rate": 1e-3,
        "max_steps": STEPS,
        "logging_steps": 5,
        "eval_steps": 3,
        "save_strategy": "steps",
        "save_steps": 2,
        "keep_last_n": 1,
    },
    "qlora, by epochs, judged by the training loss": {
        "method": "qlora",
        "no_packing": True,
        "eval_dataset": None,
        "gradient_accumulation_steps": 3,
        "batch_size": 2,
        "epochs": 6,
        "warmup_ratio": 0.3,
        "early_stopping_patience": 5,
    },
    "lora, gradient checkpointing, patience that holds": {
        **_EVERY_STEP,
        "method": "lora",
        "no_packing": True,
        "gradient_checkpointing": True,
        "gradient_accumulation_steps": 4,
        "epochs": 4,
        "eval_steps": 2,
        "early_stopping_patience": 5,
        "keep_last_n": 3,
    },
    "diffusion, a whole model with its average, flips, rows for some steps": {
        **_EVERY_STEP,
        "task": "diffusion",
        "method": "full",
        "flip_images": True,
        "ema_decay": 0.8,
        "batch_size": 3,
        "gradient_accumulation_steps": 2,
        "max_steps": STEPS,
        "logging_steps": 4,
        "eval_steps": 4,
        "keep_last_n": 3,
    },
}


@dataclass
class Reference:
    """A configuration trained without interruption."""

    settings: dict[str, Any]
    run: Path
    steps: int
    batches: dict[int, Any]


@dataclass
class Trainings:
    """All trainings of a session share a base directory, so that the base model is saved once."""

    model: Path
    home: Path
    resumed_from: set[int] = field(default_factory=set)
    _references: dict[str, Reference] = field(default_factory=dict)

    @property
    def base_dir(self) -> Path:
        return self.home / "runs"

    def words(self, settings: dict[str, Any]) -> list[str]:
        """The command line that trains with ``settings``."""
        if settings.get("task") == "diffusion":
            return image_arguments(self.home, self.base_dir, **settings)
        return arguments(self.model, self.home, self.base_dir, **settings)

    def reference(self, name: str, settings: dict[str, Any] | None = None) -> Reference:
        """The uninterrupted end of a configuration; computed when it is first asked for."""
        if name not in self._references:
            chosen = CONFIGURATIONS[name] if settings is None else settings
            trial = Trial(self, chosen)
            ended = trial.train()
            assert ended.code == 0, ended.output
            batches = {line["step"]: line for line in read_batches(trial.batches)}
            self._references[name] = Reference(chosen, trial.run, max(batches), batches)
        return self._references[name]


class Trial:
    """One training that is interrupted and resumed, perhaps several times; each save begins ``delay_s`` late."""

    def __init__(self, trainings: Trainings, settings: dict[str, Any], delay_s: float = 0.0) -> None:
        self.trainings, self.settings, self.delay_s = trainings, settings, delay_s
        self.run = Path()
        self.batches = Path()
        self.outputs: list[str] = []

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(layout.weights_directory(self.run))

    def train(self, interruption: Interruption | None = None, prepare: Callable[[], object] | None = None) -> Ended:
        """Start a run."""
        among = self.trainings.base_dir / (layout.BASE_TRAINING if self.settings.get("method") == "full" else "")
        numbers = [int(path.name.removeprefix("run_")) for path in among.glob("run_*")]
        self.run = among / f"run_{max(numbers, default=0) + 1:03d}"
        self.batches = self.trainings.home / f"batches-{among.name}-{self.run.name}.jsonl"
        self.batches.unlink(missing_ok=True)
        return self._pitstop(self.trainings.words(self.settings), interruption, prepare)

    def resume(self, interruption: Interruption | None = None, checkpoint: str | None = None) -> Ended:
        """Go on with it; from the beginning where there is no checkpoint yet, as a person would."""
        words = ["resume", str(self.run), *(["--checkpoint", checkpoint] if checkpoint else [])]
        ended = self._pitstop(words, interruption, None)
        if ended.code == 4 and "no checkpoint yet" in ended.output:
            shutil.rmtree(self.run)
            return self.train(interruption)
        found = re.search(r"Resumed run .*: step (\d+), epoch", ended.output)
        if found:
            self.trainings.resumed_from.add(int(found[1]))
        return ended

    def _pitstop(self, words: Sequence[str], interruption: Interruption | None, prepare: Callable[[], object] | None) -> Ended:
        def everything() -> None:
            note_batches(self.batches)
            if self.delay_s:
                slow_saves(self.delay_s)
            if interruption is not None:
                interruption.arm()
            if prepare is not None:
                prepare()

        ended = pitstop(*words, prepare=everything)
        self.outputs.append(f"$ {' '.join(words[:2])} … ({interruption}) → {ended.code}\n{ended.output}")
        return ended

    def assert_ended_as(self, reference: Reference) -> None:
        """The end, every row, every batch and the best are those of the uninterrupted run, and all that lies there is whole."""
        assert_same_end(reference.run, self.run, WHOLE_FILES if self.settings.get("method") == "full" else EXACT_FILES)
        ours, theirs = (layout.weights_directory(run) / "best" for run in (self.run, reference.run))
        assert ours.resolve().name == theirs.resolve().name
        self.assert_whole()
        for line in read_batches(self.batches):
            assert line == reference.batches[line["step"]], f"step {line['step']} trained on another batch"
        assert {line["step"] for line in read_batches(self.batches)} == set(reference.batches)

    def assert_whole(self) -> None:
        """Every checkpoint that has its name is what was written."""
        assert [(entry.name, entry.problem) for entry in self.store.verify_all() if entry.problem is not None] == []

    def forget(self) -> None:
        """Make room for the next."""
        shutil.rmtree(self.run)
        self.batches.unlink()
