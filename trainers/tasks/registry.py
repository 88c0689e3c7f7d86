"""Which tasks there are, and where each lives."""

from __future__ import annotations

import importlib
from typing import Any

from pitstop.configs.schema import Settings
from pitstop.trainers.tasks.base import Task

TASKS = {
    "sft": "pitstop.trainers.tasks.sft:SftTask",
    "ner": "pitstop.trainers.tasks.ner.task:NerTask",
    "rank": "pitstop.trainers.tasks.rank.task:RankTask",
    "diffusion": "pitstop.trainers.tasks.diffusion.task:DiffusionTask",
}
"""Name in the settings (``training.task``) to module and class; imported when the task is used."""


def make_task(settings: Settings, tokenizer: Any) -> Task:
    """The task that the settings name."""
    module, _, attribute = TASKS[settings.training.task].partition(":")
    task = getattr(importlib.import_module(module), attribute)(tokenizer, settings)
    assert isinstance(task, Task)
    return task
