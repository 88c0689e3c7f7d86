"""Records, settings and scorings for tests of the task ner."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.schema import EvaluationSettings, NerSettings, Settings
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import Record
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.tasks.ner.task import NerTask

ASPIRIN = {"id": "1", "text": "Aspirin eased her pain.", "entities": {"chemical": ["Aspirin"], "disease": ["pain"]}}


def ner_settings(train: Sequence[str | Path] = (), **groups: Any) -> Settings:
    """Settings with these training data and groups of settings."""
    kinds = {"data": DataSettings, "evaluation": EvaluationSettings, "ner": NerSettings}
    groups["data"] = {"train": [str(spec) for spec in train], **groups.get("data", {})}
    return Settings(**{name: kinds[name](**values) for name, values in groups.items()})


def examples_of(task: NerTask, fields: dict[str, Any]) -> list[Example]:
    """What ``task`` makes of one record."""
    return task.examples(Record(fields, "here"))


def on_processor(model: Any, tokenizer: Any, **changes: Any) -> Scoring:
    """A scoring by ``model`` in two at a time, six tokens each."""
    options = {"batch_size": 2, "max_new_tokens": 6, **changes}
    return Scoring(model, tokenizer, torch.device("cpu"), contextlib.nullcontext, **options)
