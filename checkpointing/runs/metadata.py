"""metadata.json, what a run says of itself: the one place that reads and writes its keys.

A document is a JSON object as it stands in the file; its keys are attributes. A value of another type than Pitstop writes reads
as if it were missing, and ``misfits`` names its key. A rewrite keeps such values, the keys of other versions, and the order of
all keys. Light enough for ``list-runs``.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.dotted import at
from pitstop.configs.paths import PATHS

if TYPE_CHECKING:
    from pathlib import Path

    from pitstop.checkpointing.disk.inspection import CheckpointInfo

FORMAT_VERSION = 1
"""Newest format that is read."""

MAX_BYTES = 64 * 1024 * 1024
"""A file longer than this counts as unreadable."""

CREATED, RUNNING, COMPLETED, STOPPED = "created", "running", "completed", "stopped"
INTERRUPTED, FAILED = "interrupted", "failed"
"""What ``status`` says. A run that has stopped did so by itself, early."""

T = TypeVar("T")
Part = TypeVar("Part", bound="Recorded")


class Key(Generic[T]):
    """A key of a document: ``read`` gives its value, or None where that is of another type; ``missing`` stands for that.

    ``fits`` says whether a value is what Pitstop writes in all its parts. ``name`` is the key where no attribute can be called so.
    """

    def __init__(
        self, read: Callable[[Any], T | None], missing: T, *, fits: Callable[[Any], bool] | None = None, name: str = ""
    ) -> None:
        self.read, self.missing, self.name = read, missing, name
        self.fits = fits or (lambda value: read(value) is not None)

    def __set_name__(self, owner: type[Recorded], name: str) -> None:
        self.name = self.name or name

    def __get__(self, document: Recorded, owner: type[Recorded]) -> T:
        value = self.read(document.content.get(self.name))
        return self.missing if value is None else value


@dataclass(frozen=True)
class Recorded:
    """A JSON object, with its keys as attributes."""

    content: Mapping[str, Any] = field(default_factory=dict)

    def misfits(self) -> list[str]:
        """The keys whose values are of another type than Pitstop writes."""
        keys = [key for owner in reversed(type(self).__mro__) for key in vars(owner).values() if isinstance(key, Key)]
        return [key.name for key in keys if (value := self.content.get(key.name)) is not None and not key.fits(value)]


def _text() -> Key[str | None]:
    return Key(lambda value: value if isinstance(value, str) else None, None)


def _integer() -> Key[int | None]:
    # A program may have put down a fraction of a step; it reads as missing, and may be shown.
    return Key(lambda value: value if type(value) is int else None, None, fits=lambda value: type(value) in (int, float))


def _number() -> Key[float | None]:
    return Key(lambda value: value if type(value) in (int, float) else None, None)


def _amount() -> Key[float | None]:
    return Key(lambda value: value if type(value) in (int, float) and 0 <= value < 1e18 else None, None)


def _object(fits: Callable[[dict[str, Any]], bool] = lambda value: True) -> Key[Mapping[str, Any]]:
    return Key(
        lambda value: value if isinstance(value, dict) else None, {}, fits=lambda value: isinstance(value, dict) and fits(value)
    )


def _list(fits: Callable[[list[Any]], bool] = lambda value: True) -> Key[Sequence[Any]]:
    return Key(lambda value: value if isinstance(value, list) and fits(value) else None, ())


def _is_whole(kind: type[Recorded], value: Any) -> bool:
    return isinstance(value, dict) and not kind(value).misfits()


def _part(kind: type[Part], name: str = "") -> Key[Part]:
    """Another document; an empty one stands for one that is missing."""
    return Key(
        lambda value: kind(value) if isinstance(value, dict) else None,
        kind(),
        fits=lambda value: _is_whole(kind, value),
        name=name,
    )


def _parts(kind: type[Part]) -> Key[tuple[Part, ...]]:
    """A list of documents; what is no document in it is left out."""

    def read(value: Any) -> tuple[Part, ...] | None:
        return tuple(kind(entry) for entry in value if isinstance(entry, dict)) if isinstance(value, list) else None

    return Key(read, (), fits=lambda value: isinstance(value, list) and all(_is_whole(kind, entry) for entry in value))


class RecordedProgress(Recorded):
    """How far the training is, and how far it is to go; epochs are passes over the data."""

    step = _integer()
    total_steps = _integer()
    epoch = _number()
    total_epochs = _number()


class RecordedUsage(Recorded):
    """What training took on this machine, over all processes that saved a checkpoint or came to an end: seconds and bytes."""

    training_s = _amount()
    peak_memory_bytes = _amount()


class RecordedCheckpoint(Recorded):
    """A checkpoint that the run has: ``path`` from the base directory, ``saved_at`` in ISO 8601, ``size`` in bytes."""

    name = _text()
    epoch = _number()
    step = _integer()
    path = _text()
    metrics = _object()
    saved_at = _text()
    size = _integer()

    @classmethod
    def of(cls, info: CheckpointInfo, base_dir: Path) -> RecordedCheckpoint:
        """What is recorded of ``info``, a checkpoint of a run below ``base_dir``."""
        return cls({
            "name": info.name,
            "epoch": plain_number(info.epoch),
            "step": info.step,
            "path": info.path.relative_to(base_dir).as_posix(),
            "metrics": dict(info.metrics),
            "saved_at": info.saved_at.isoformat(),
            "size": info.size,
        })  # fmt: skip


class RecordedBest(RecordedCheckpoint):
    """The best checkpoint, with its ``value`` of the ``metric`` that it was chosen by; ``mode`` is ``min`` or ``max``."""

    metric = _text()
    mode = _text()
    value = _number()

    @classmethod
    def by(cls, metric: str, mode: str, checkpoint: RecordedCheckpoint) -> RecordedBest:
        """``checkpoint`` as the best one by ``metric``, which it has."""
        place = {key: value for key, value in checkpoint.content.items() if key not in ("size", "saved_at")}
        return cls({**place, "metric": metric, "mode": mode, "value": checkpoint.metrics[metric]})


class RecordedOrigin(Recorded):
    """The run and checkpoint of a base training that a run stands on."""

    run = _text()
    name = _text()
    checkpoint = _text()
    step = _integer()


class RecordedBase(Recorded):
    """The base model: where it came from, its digest, and whether the run has a copy of it.

    ``frozen``, ``names`` and ``aliases`` are those of a program's own model, as ``CheckpointManager.save_base_model`` saved it.
    """

    id = _text()
    revision = _text()
    digest = _text()
    saved = Key(lambda value: value if isinstance(value, bool) else None, None)
    origin = _part(RecordedOrigin, name="from")
    frozen = _text()
    names = _object()
    aliases = _object()


class RecordedEnvironment(Recorded):
    """The machine of a training: ``versions`` of the libraries by name, and the ``precision`` that it computed in."""

    versions = _object()
    precision = _text()


class RecordedSplit(Recorded):
    """Data that was trained or evaluated on: ``used`` examples of it, with so many ``tokens`` where it is text."""

    fingerprint = _text()
    used = _integer()
    tokens = _integer()


class RecordedCounts(Recorded):
    """What became of the training data; ``template_options`` says how many ``answers`` are learnt behind which ``options`` of the template."""

    template_options = _list(
        fits=lambda value: all(isinstance(entry, dict) and isinstance(entry.get("options"), dict) for entry in value)
    )


class RecordedData(RecordedSplit):
    """The training data, and as ``eval`` the evaluation data; ``classes`` counts the images of each class by its name.

    ``template`` is the SHA-256 of the chat template that text was rendered by.
    """

    template = _text()
    eval = _part(RecordedSplit)
    counts = _part(RecordedCounts)
    class_names = _list(fits=lambda value: all(isinstance(item, str) for item in value))
    classes = _object()


class RecordedResume(Recorded):
    """When the run was resumed and from which checkpoint.

    ``changes`` and ``environment_changes`` are {setting: [old, new]}; what the lists hold is not looked at. ``base_model`` is there
    where the base changed.
    """

    at = _text()
    checkpoint = _text()
    step = _integer()
    epoch = _number()
    changes = _object(fits=lambda value: all(isinstance(pair, list) and pair for pair in value.values()))
    environment = _object()
    environment_changes = _object()
    base_model = _part(RecordedBase)
    notices = _list(fits=lambda value: all(isinstance(notice, dict) for notice in value))


class Metadata(Recorded):
    """The whole of metadata.json. Times are ISO 8601 with an offset."""

    format_version = _integer()
    run_number = _integer()
    name = _text()
    experiment_name = _text()
    task = _text()
    method = _text()
    model = _text()
    dataset = _text()
    status = _text()
    status_reason = _text()
    created_at = _text()
    updated_at = _text()
    progress = _part(RecordedProgress)
    checkpoints = _parts(RecordedCheckpoint)
    best_checkpoint = _part(RecordedBest)
    training_config = _object()
    lora_config = _object()
    environment = _part(RecordedEnvironment)
    data = _part(RecordedData)
    base_model = _part(RecordedBase)
    resumes = _parts(RecordedResume)
    trackers = _object()
    """What finds the trackers' runs again, by the tracker's name."""
    batch_size_changes = _list()
    notices = _list(fits=lambda value: all(isinstance(notice, dict) for notice in value))
    """What was decided on the user's behalf, as ``pitstop.configs.notices`` records it."""
    usage = _part(RecordedUsage)

    @classmethod
    def initial(cls, number: int, name: str, config: Mapping[str, Any], moment: datetime) -> Metadata:
        """What a run says that starts at ``moment`` with the settings ``config``."""
        created = (moment if moment.tzinfo else moment.astimezone()).isoformat(timespec="seconds")
        return cls({
            "format_version": FORMAT_VERSION,
            "run_number": number,
            "name": name,
            "experiment_name": at(config, "naming.experiment_name"),
            "task": at(config, "training.task"),
            "method": at(config, "training.method"),
            "model": at(config, "model.id"),
            "dataset": _dataset_label(at(config, "data.train"), at(config, "data.label"), at(config, "data.classes")),
            "status": CREATED,
            "created_at": created,
            "updated_at": created,
            "progress": {
                "step": 0,
                "total_steps": at(config, "training.max_steps"),
                "epoch": 0,
                "total_epochs": at(config, "training.epochs"),
            },
            "checkpoints": [],
            "best_checkpoint": None,
            "training_config": at(config, "training") or {},
            "lora_config": at(config, "lora") or {},
            "environment": {},
            "data": {},
            "base_model": {},
            "resumes": [],
        })  # fmt: skip

    @property
    def has_ended(self) -> bool:
        """Whether the run has trained all that it was to train."""
        return self.status in (COMPLETED, STOPPED)

    def changed(self, changes: Mapping[str, Any]) -> Metadata:
        """With other values under top-level keys; new keys come last."""
        return Metadata({**self.content, **changes})

    def standing_at(self, info: CheckpointInfo | None) -> Metadata:
        """Of a run that got as far as its newest checkpoint ``info``; as it is where there is none."""
        if info is None:
            return self
        return self.changed({"progress": {**self.progress.content, "step": info.step, "epoch": plain_number(info.epoch)}})

    def paths(self, config: Mapping[str, Any], checkpoint: str, step: int) -> Iterator[dict[str, Any]]:
        """The values that ``PATHS`` had in the run, by dotted path; first those in force when ``checkpoint`` was saved at ``step``.

        ``config`` is config.json. A resume led to the checkpoint if it started from an earlier one that was not left again for
        one still earlier: each sets aside what came after its start.
        """
        reached = _line_position(step, checkpoint)
        abandoned: list[dict[str, Any]] = []
        for resume in reversed(self.resumes):
            start = _line_position(resume.step, resume.checkpoint)
            if start < reached:
                reached = start
                yield _new_paths(resume)
            else:
                abandoned.append(_new_paths(resume))
        yield {path: at(config, path) for path in PATHS}
        yield from abandoned

    def to_bytes(self) -> bytes:
        """The document as the file holds it."""
        return json_bytes(self.content)


def _line_position(step: int | None, checkpoint: str | None) -> tuple[float, bool]:
    """Where in a line of training a checkpoint was saved. One with its evaluation to come is before that with it."""
    return (math.inf if step is None else step, not layout.is_pending(str(checkpoint)))


def _new_paths(resume: RecordedResume) -> dict[str, Any]:
    pairs = resume.changes.items()
    return {path: pair[1] for path, pair in pairs if path in PATHS and isinstance(pair, list) and len(pair) == 2}


def _dataset_label(sources: Any, label: Any, classes: Any) -> str | None:
    """What lists call the data: its label or its place, and how many classes were chosen: ``Trees (5)``."""
    if not isinstance(sources, list) or not sources:
        return None
    from pitstop.configs.datasets import without_weight  # a listing does without

    suffix = f" ({len(classes)})" if isinstance(classes, list) and classes else ""
    if isinstance(label, str) and label:
        return label + suffix
    first = without_weight(str(sources[0])).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return (first if len(sources) == 1 else f"{first} +{len(sources) - 1}") + suffix


def plain_number(value: float) -> float:
    """``value`` as an integer where it is one."""
    return int(value) if float(value).is_integer() else value


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """``content`` as the JSON files of a run hold it."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


# Reading many

# A link is not followed, and a pipe without a writer keeps nobody waiting.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

# A line break never stands inside a JSON string, so this is the top-level key and nothing else.
_LONG_PARTS = b',\n  "training_config":'
_HEAD_KEYS = {
    "name", "experiment_name", "task", "method", "model", "dataset", "status", "created_at", "updated_at", "progress",
    "checkpoints", "best_checkpoint",
}  # fmt: skip


def read_head(run: str) -> Metadata:
    """What a listing needs of the metadata of the run directory ``run``, or all of it; empty where it cannot be read.

    As Pitstop writes the file, the long parts come last and each top-level key starts a line. Leaving them unparsed takes
    two thirds off the time of a long listing; a file in any other shape is parsed in full.
    """
    data = _read(run)
    end = data.find(_LONG_PARTS)
    if end > 0:
        content = _parse(data[:end] + b"}")
        if _HEAD_KEYS <= content.keys():
            return Metadata(content)
    return Metadata(_parse(data))


def _read(run: str) -> bytes:
    try:
        # Plain descriptors: a third of the time of an open file object, a thousand times over.
        descriptor = os.open(f"{run}/{layout.METADATA}", _FLAGS)
    except OSError:
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return b""
        return os.read(descriptor, status.st_size)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
