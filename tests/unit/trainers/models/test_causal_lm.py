"""What of a model's configuration is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.errors import ModelError
from pitstop.trainers.models.causal_lm import CausalLM
from pitstop.trainers.models.source import ModelSource

LLAMA = {
    "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
BERT = {**LLAMA, "model_type": "bert"}
GEMMA = {**LLAMA, "model_type": "gemma3_text", "head_dim": 8, "num_key_value_heads": 1}


def _source(directory: Path, config: dict[str, Any]) -> ModelSource:
    (directory / "config.json").write_text(json.dumps(config))
    return ModelSource("m", directory, None)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": "2"},
        {"hidden_size": 15},
        {"num_attention_heads": 0},
        {"vocab_size": 0, "pad_token_id": 0},
        {"rope_scaling": 5},
        {"rms_norm_eps": None},
        {"dtype": "floatx"},
        {"hidden_act": "none"},
    ],
)
def test_values_that_no_model_can_have_are_faults_of_the_file(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"^{tmp_path} (has no usable config.json|builds no causal language model): .") as caught:
        CausalLM().without_weights(_source(tmp_path, {**LLAMA, **change}))
    assert "Validation error for field" not in str(caught.value)


@pytest.mark.parametrize("config", [BERT, {**GEMMA, "use_bidirectional_attention": True}])
def test_a_model_whose_tokens_see_what_follows_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="is an encoder") as caught:
        CausalLM().check(_source(tmp_path, config), lambda notice: None)
    assert "decoder" in str(caught.value.hint)


@pytest.mark.parametrize("config", [LLAMA, GEMMA, {**BERT, "is_decoder": True}, {**LLAMA, "model_type": "gpt_neox"}])
def test_decoders_are_not(tmp_path: Path, config: dict[str, Any]) -> None:
    source = _source(tmp_path, config)
    CausalLM().check(ModelSource("m", tmp_path, None, config=source.path / "config.json"), lambda notice: None)
