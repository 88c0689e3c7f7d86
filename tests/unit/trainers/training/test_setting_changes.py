"""Which settings a resume may change."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.load import settings_to_dict
from pitstop.trainers.training.setting_changes import changes_between, is_fixed, refuse_fixed
from support.fake_training import settings_with


@pytest.mark.parametrize(
    ("path", "fixed"),
    [
        ("lora.rank", True),
        ("lora.dropout", False),
        ("training.optimizer", True),
        ("training.learning_rate", False),
        ("training.checkpoint.base_dir", False),
        ("training.checkpoint.run_number", True),
        ("model.id", False),
        ("quantization.quant_type", True),
        ("data.chat_template", True),
        ("data.template_date", False),
    ],
)
def test_what_would_make_another_model_is_fixed(path: str, fixed: bool) -> None:
    assert is_fixed(path) is fixed


def test_changes_are_told_with_both_values_and_where_the_run_lies_is_none() -> None:
    saved = settings_to_dict(settings_with(training__checkpoint__base_dir="/old"))
    current = settings_to_dict(settings_with(training__checkpoint__base_dir="/new", training__epochs=5))
    assert changes_between(saved, current) == {"training.epochs": (2, 5)}


def test_a_setting_that_an_older_version_did_not_know_had_its_default() -> None:
    saved: dict[str, Any] = settings_to_dict(settings_with())
    current = settings_to_dict(settings_with(training__max_grad_norm=0.25))
    default = saved["training"].pop("max_grad_norm")
    assert changes_between(saved, current) == {"training.max_grad_norm": (default, 0.25)}


def test_the_error_names_what_the_user_gave_and_not_what_follows_from_it() -> None:
    with pytest.raises(SettingsError, match=r"^--optimizer cannot change in a resumed run"):
        refuse_fixed(["lora.rank", "training.optimizer"], ["training.optimizer"], "lora")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_base_of_an_adapter_may_lie_elsewhere_and_a_whole_model_needs_none(method: str) -> None:
    refuse_fixed(["model.id"], ["model.id"], method)
    with pytest.raises(SettingsError, match=r"^--model-id cannot change"):
        refuse_fixed(["model.id"], ["model.id"], "full")
