from __future__ import annotations

import pytest

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.store import file_sets
from pitstop.checkpointing.store.file_sets import Form, form_of, group_of, is_model_file


def test_the_files_of_a_form_are_those_and_no_others() -> None:
    full = file_sets.checkpoint_files(1) - {layout.ADAPTER_WEIGHTS, layout.ADAPTER_CONFIG} | {"config.json", "model.safetensors"}
    assert Form(full_model=True).problems(full, 1) == ([], [])
    assert Form(full_model=True).problems(full | {"tokenizer.json", "ema.safetensors"}, 1) == ([], ["ema.safetensors"])
    assert Form(full_model=True, ema=True).problems(full, 1) == (["ema.safetensors"], [])
    huge = {*full - {"model.safetensors"}, "model-00001-of-99999.safetensors"}
    missing, _ = Form(full_model=True).problems(huge, 1)
    assert "model.safetensors.index.json" in missing and len(missing) < 20
    assert Form().problems(full, 1)[1] == ["config.json", "model.safetensors"]
    served = Form(full_model=True, ema=True).served({*full, "ema.safetensors", "tokenizer.json"})
    assert served == {"config.json": "config.json", "tokenizer.json": "tokenizer.json", "model.safetensors": "ema.safetensors"}


def test_an_adapter_is_served_from_its_average_where_there_is_one() -> None:
    names = file_sets.checkpoint_files(2)
    assert {"rng_state_0.json", "rng_state_1.json"} <= names
    assert Form().problems(names, 2) == ([], [])
    assert Form().problems(names - {"optimizer.json"}, 1) == (["optimizer.json"], ["rng_state_1.json"])
    assert Form().weights(names) == ["adapter_model.safetensors"]
    assert Form().served(names)["adapter_model.safetensors"] == "adapter_model.safetensors"
    assert Form(ema=True).served(names)["adapter_model.safetensors"] == "ema.safetensors"


@pytest.mark.parametrize(
    ("training", "form", "group"),
    [
        ({"method": "lora"}, Form(), ""),
        ({"method": "qlora", "ema_decay": 0.9}, Form(ema=True), ""),
        ({"method": "full", "ema_decay": None}, Form(full_model=True), "base_training"),
        ({"method": "full", "ema_decay": 0.9}, Form(full_model=True, ema=True), "base_training"),
    ],
)
def test_the_form_follows_from_the_settings(training: dict[str, object], form: Form, group: str) -> None:
    assert form_of({"training": training}) == form
    assert group_of({"training": training}) == group


def test_files_of_a_model_are_known_by_their_names() -> None:
    names = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "merges.txt"]
    assert all(map(is_model_file, names))
    assert not any(map(is_model_file, ["model-1-of-2.safetensors", "modeling.py", "optimizer.safetensors", "../config.json"]))
