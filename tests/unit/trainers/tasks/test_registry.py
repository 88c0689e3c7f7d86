"""Every task of the settings has a class, and every family too."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from pitstop.configs.schema import Settings, TrainingSettings
from pitstop.trainers.models.causal_lm import CausalLM
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.family import DiffiTFamily
from pitstop.trainers.tasks.registry import FAMILIES, TASKS, family_of, make_task


def test_the_tasks_are_the_choices_of_the_setting() -> None:
    assert tuple(TASKS) == typing.get_args(typing.get_type_hints(TrainingSettings)["task"])


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_name_that_it_is_chosen_by(name: Any, tokenizer: Any) -> None:
    settings = Settings(training=TrainingSettings(task=name))
    task = make_task(settings, DiffiTConfig() if name == "diffusion" else tokenizer)
    assert task.name == name
    assert isinstance(family_of(settings), DiffiTFamily if name == "diffusion" else CausalLM)


def test_every_family_can_be_imported() -> None:
    assert {family.rpartition(":")[2] for family in FAMILIES.values()} == {"CausalLM", "DiffiTFamily"}
