"""Which tasks and families of models there are, and where each lives; a module is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

from pitstop.configs.schema import Settings
from pitstop.trainers.models.family import Family
from pitstop.trainers.tasks.base import Task

TASKS = {
    "sft": "pitstop.trainers.tasks.sft:SftTask",
    "ner": "pitstop.trainers.tasks.ner.task:NerTask",
    "rank": "pitstop.trainers.tasks.rank.task:RankTask",
    "diffusion": "pitstop.trainers.tasks.diffusion.task:DiffusionTask",
}
"""Name in the settings (``training.task``) to module and class."""

FAMILIES = {
    "causal-lm": "pitstop.trainers.models.causal_lm:CausalLM",
    "diffit": "pitstop.trainers.tasks.diffusion.family:DiffiTFamily",
}
"""Name of a family to module and class."""

_FAMILY_OF_TASK = {"diffusion": "diffit"}
"""Tasks whose models are not causal language models."""


def make_task(settings: Settings, tokenizer: Any) -> Task:
    """The task that the settings name."""
    return task_class(settings)(tokenizer, settings)


def task_class(settings: Settings) -> type[Task]:
    """The class of the task that the settings name."""
    task: type[Task] = _imported(TASKS[settings.training.task])
    return task


def family_of(settings: Settings) -> Family:
    """The family that the task's models belong to."""
    family: Family = _imported(FAMILIES[_FAMILY_OF_TASK.get(settings.training.task, "causal-lm")])()
    return family


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
