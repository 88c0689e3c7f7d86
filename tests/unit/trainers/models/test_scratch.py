"""Models from scratch: the same from the same seed, and nothing in their configuration runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.configs.errors import ModelError, SettingsError
from pitstop.configs.load import BaseRun, load_settings
from pitstop.trainers.models.causal_lm import CausalLM
from pitstop.trainers.models.source import ModelSource

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}


@pytest.fixture
def described(tiny: Path, tmp_path: Path) -> Callable[..., ModelSource]:
    """A source for the small configuration with changes, and a seed."""

    def make(seed: int = 1, **changes: Any) -> ModelSource:
        path = tmp_path / f"small-{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps({**SMALL, **changes}))
        return ModelSource("small", tiny, None, config=path, seed=seed)

    return make


def _weights(source: ModelSource) -> dict[str, torch.Tensor]:
    model = CausalLM().initialise(source, source.seed, CPU, flash=False)
    return {name: tensor.clone() for name, tensor in CausalLM().tensors(model).items()}


def test_the_seed_decides_the_weights_whatever_was_drawn_before(described: Callable[..., ModelSource]) -> None:
    first = _weights(described(seed=1))
    torch.rand(5)
    again, other = _weights(described(seed=1)), _weights(described(seed=2))
    assert first.keys() == again.keys() == other.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(tensor.dtype == torch.float32 for tensor in first.values())


def test_what_is_tied_is_saved_once(described: Callable[..., ModelSource]) -> None:
    tied, untied = _weights(described()), _weights(described(tie_word_embeddings=False))
    assert "model.embed_tokens.weight" in tied and untied.keys() - tied.keys() == {"lm_head.weight"}


def test_the_digest_changes_with_configuration_and_seed_and_not_with_the_order_of_keys(
    described: Callable[..., ModelSource],
) -> None:
    first = described()
    assert first.config is not None
    turned = described()
    assert turned.config is not None
    turned.config.write_text(json.dumps(dict(reversed(SMALL.items())), indent=3))
    digests = [source.digest({}) for source in (first, turned, described(hidden_size=32), described(seed=2))]
    assert digests[0] == digests[1] and len(set(digests)) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "code of its own"),
        ({"rope_scaling": {"trust_remote_code": True}}, "code of its own"),
        ({"attn_implementation": "evil/kernel"}, "kernel"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantised"),
        ({"model_type": "no-such-model"}, "not a configuration"),
        ({"model_type": None}, "model_type is missing"),
        ({"model_type": "clip"}, "builds no causal language model"),
        ({"num_attention_heads": "two"}, "not a configuration|builds no"),
    ],
)
def test_a_configuration_that_builds_no_model_or_names_code_is_refused(
    described: Callable[..., ModelSource], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        _weights(described(**change))


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": NaN'])
def test_a_file_that_is_no_object_is_refused(tiny: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"broken\.json"):
        _weights(ModelSource("broken", tiny, None, config=path))


FULL: dict[str, Any] = {"training.method": "full", "model.from_scratch": True, "data.train": ["d.jsonl"]}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({**FULL, "model.config": "c.json", "model.tokenizer": "t", "training.method": "lora"}, "needs method full"),
        ({**FULL, "model.tokenizer": "t"}, "needs a configuration"),
        ({**FULL, "model.config": "c.json"}, "needs a tokenizer"),
        ({**FULL, "model.config": "c.json", "model.id": "m", "model.from_run": "base_training/1"}, "contradicts"),
        ({"training.method": "full", "model.id": "m", "data.train": ["d.jsonl"], "model.config": "c.json"}, "from scratch only"),
        ({"training.method": "full", "model.id": "m", "data.train": ["d.jsonl"], "hub.push_base": True}, "freezes none"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(flags=flags, environ={}, require_model_and_data=True)


def test_model_and_tokenizer_stand_in_for_each_other() -> None:
    settings = load_settings(flags={**FULL, "model.config": "c.json", "model.tokenizer": "t"}, environ={}).settings
    assert (settings.model.id, settings.model.tokenizer) == ("c.json", "t")
    settings = load_settings(flags={**FULL, "model.config": "c.json", "model.id": "m"}, environ={}).settings
    assert (settings.model.id, settings.model.tokenizer) == ("m", "m")


@pytest.mark.parametrize(
    ("flags", "epochs", "where"),
    [
        ({"training.method": "full"}, 3, "default of method full"),
        ({"training.method": "lora"}, 5, "default"),
        ({"training.method": "full", "training.epochs": 5}, 5, "--epochs"),
    ],
)
def test_base_training_has_three_epochs_unless_told_otherwise(flags: dict[str, Any], epochs: int, where: str) -> None:
    loaded = load_settings(flags={**flags, "model.id": "m", "data.train": ["d"]}, environ={})
    assert (loaded.settings.training.epochs, loaded.sources["training.epochs"].place) == (epochs, where)
    assert loaded.settings.quantization.load_in_4bit is False


ON_A_BASE: dict[str, Any] = {"model.from_run": "base_training/1", "data.train": ["d.jsonl"], "training.method": "lora"}


def _base_run(directory: str, reference: str) -> BaseRun:
    return BaseRun("base_training/run_001@epoch_003", "base_training/run_001", {"model.id": "base"})


def test_what_the_environment_says_of_base_trainings_is_not_meant_for_an_adapter_on_one() -> None:
    environ = {"PITSTOP_MODEL_CONFIG": "small.json", "PITSTOP_TOKENIZER": "t"}
    model = load_settings(flags=ON_A_BASE, environ=environ, find_base_run=_base_run).settings.model
    assert (model.id, model.config, model.tokenizer) == ("base", None, None)


def test_two_flags_that_name_a_base_and_a_configuration_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="from scratch only"):
        load_settings(flags={**ON_A_BASE, "model.config": "small.json"}, environ={}, find_base_run=_base_run)


def test_a_base_named_in_the_environment_as_weakly_as_a_configuration_is_refused_with_it() -> None:
    environ = {"PITSTOP_MODEL_CONFIG": "small.json", "PITSTOP_FROM_RUN": "base_training/1"}
    flags = {path: value for path, value in ON_A_BASE.items() if path != "model.from_run"}
    with pytest.raises(SettingsError, match="from scratch only"):
        load_settings(flags=flags, environ=environ, find_base_run=_base_run)
