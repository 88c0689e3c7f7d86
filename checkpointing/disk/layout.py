"""Where things lie on disk and how a user names them. Pure text and paths; nothing here reads the disk."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pitstop.configs.errors import RunError

BASE_TRAINING = "base_training"
"""Directory of the runs that train a base model; LoRA runs lie directly in the base directory."""

BY_NAME = "by-name"
BASE_MODELS = ".base_models"
CONFIG = "config.json"
METADATA = "metadata.json"
LOCK = ".lock"
LOGS = "logs"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
SUPERSEDED_METRICS = "metrics.superseded.jsonl"
TRAIN_LOG = "train.log"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
BASE_MODEL = "base_model"
MANIFEST = "MANIFEST.json"
BASE_MANIFEST = "BASE_MANIFEST.json"

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_META = "optimizer.json"
TRAINER_STATE = "trainer_state.json"
STATE_VERSION = 1
"""Newest version of trainer_state.json that is read."""

SOURCES = "sources"
"""Key in config.json beside the settings: where each was set."""

MADE_BY = "made_by"
MANAGER = "checkpoint manager"
"""What ``made_by`` says in config.json and in the checkpoints of a run that a program made through the Python API."""

DAMAGED = ".damaged"
SUPERSEDED = ".superseded"
LAST, BEST = "last", "best"
POINTERS = (LAST, BEST)

_RUN = re.compile(r"run_([0-9]{3,9})")
_EPOCH = re.compile(r"epoch_([0-9]{3,9})")
_STEP = re.compile(r"checkpoint-(0|[1-9][0-9]{0,14})(-pending)?")
_LOOSE_RUN = re.compile(r"([0-9]{1,9})|run_([0-9]{3,9})")
_LOOSE_EPOCH = re.compile(r"epoch[_-]([0-9]{1,9})")


def run_directory_name(number: int) -> str:
    """``run_003`` for 3."""
    return f"run_{number:03d}"


def run_number(directory_name: str) -> int | None:
    """3 for ``run_003``; None for anything that Pitstop would not have written, ``run_3`` and ``run_0003`` included."""
    match = _RUN.fullmatch(directory_name)
    return int(match[1]) if match and run_directory_name(int(match[1])) == directory_name else None


def epoch_name(epoch: int) -> str:
    """Name of the checkpoint at the end of epoch ``epoch``, counted from 1: ``epoch_003``."""
    return f"epoch_{epoch:03d}"


def step_name(step: int, *, pending: bool = False) -> str:
    """Name of a checkpoint by optimizer step: ``checkpoint-100``.

    ``pending``: a signal put this step's evaluation off. The plain name stays free for the checkpoint with its metrics,
    which the resumed run writes, since no checkpoint is ever overwritten.
    """
    return f"checkpoint-{step}-pending" if pending else f"checkpoint-{step}"


def is_checkpoint_name(name: str) -> bool:
    """Whether ``name`` is exactly a name that ``epoch_name`` or ``step_name`` gives."""
    match = _EPOCH.fullmatch(name)
    return epoch_name(int(match[1])) == name if match else _STEP.fullmatch(name) is not None


def is_pending(name: str) -> bool:
    """Whether ``name`` is one that ``step_name`` gives a checkpoint whose evaluation was put off."""
    match = _STEP.fullmatch(name)
    return match is not None and match[2] is not None


def step_of_name(name: str) -> int | None:
    """The optimizer step that a checkpoint's name tells: 100 for ``checkpoint-100``; None for ``epoch_003``."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def rng_file(rank: int) -> str:
    """Name of the file with one process's random state."""
    return f"rng_state_{rank}.json"


def normal_checkpoint(text: str) -> str:
    """What a user typed for a checkpoint, in the form of the store: ``epoch_3`` becomes ``epoch_003``."""
    match = _LOOSE_EPOCH.fullmatch(text)
    return epoch_name(int(match[1])) if match else text


def weights_directory(run: Path) -> Path:
    """Where the checkpoints of the run directory ``run`` lie: ``lora_weights``, or ``checkpoints`` in a base training."""
    return run / ("checkpoints" if run.parent.name == BASE_TRAINING else "lora_weights")


def split_base(base_dir: Path | str) -> tuple[Path, str]:
    """Base directory and group of runs: ``checkpoints/base_training`` is the group ``base_training`` of ``checkpoints``."""
    path = Path(base_dir)
    return (path.parent, BASE_TRAINING) if path.name == BASE_TRAINING else (path, "")


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run as the user named it: by ``number`` in ``group``, by ``name`` or by ``path``, and perhaps a checkpoint of it."""

    text: str
    group: str = ""
    number: int | None = None
    name: str | None = None
    path: Path | None = None
    checkpoint: str | None = None


def parse_run_ref(text: str | int) -> RunRef:
    """Read ``3``, ``run_003``, ``base_training/1``, a run's name or a path, each perhaps followed by ``@checkpoint``.

    A path may point into a run, at one of its checkpoints. ``RunError`` for an empty reference.
    """
    text = str(text).strip()
    body, at, checkpoint = text.rpartition("@")
    if not at or os.sep in checkpoint or "/" in checkpoint:
        body, checkpoint = text, ""
    if not body or (at and not checkpoint and body != text):
        raise RunError(f"'{text}' names no run", hint="give a number (3), run_003, base_training/1, a run's name or a path")
    chosen = normal_checkpoint(checkpoint) if checkpoint else None
    group, slash, last = body.rpartition("/")
    if (not slash or group == BASE_TRAINING) and (match := _LOOSE_RUN.fullmatch(last)):
        return RunRef(text, group=group, number=int(match[1] or match[2]), checkpoint=chosen)
    if slash or os.sep in body or body.startswith((".", "~")):
        return RunRef(text, path=Path(body).expanduser(), checkpoint=chosen)
    return RunRef(text, name=body, checkpoint=chosen)
