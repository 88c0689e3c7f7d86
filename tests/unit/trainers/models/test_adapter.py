"""The adapter: where it sits, that it changes nothing at first, and that the seed alone decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import LoraSettings
from pitstop.trainers.loop.optim import trainable
from pitstop.trainers.models.adapter import add_adapter, prepare_for_training

Load = Callable[..., Any]
ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def _add(model: Any, *targets: str, seed: int = 1, **values: Any) -> Any:
    options = {"rank": 4, "alpha": 8, "dropout": 0.0, **values}
    return add_adapter(model, LoraSettings(target_modules=list(targets), **options), seed=seed, model_id="owner/name")


def _adapted(model: Any) -> set[str]:
    return {name.split(".lora_")[0].removeprefix("base_model.model.model.") for name in trainable(model)}


@pytest.mark.parametrize(
    ("targets", "modules"),
    [
        (["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        (["all-linear"], ALL),
        (["default"], {"q_proj", "v_proj"}),
        (["self_attn.q_proj"], {"q_proj"}),
    ],
)
def test_adapters_sit_on_the_modules_asked_for_in_every_layer(load_tiny: Load, targets: list[str], modules: set[str]) -> None:
    adapted = _adapted(_add(load_tiny(), *targets))
    assert {path.split(".")[-1] for path in adapted} == modules
    assert len(adapted) == 2 * len(modules)


def test_one_layer_may_be_named(load_tiny: Load) -> None:
    assert _adapted(_add(load_tiny(), "layers.1.self_attn.q_proj")) == {"layers.1.self_attn.q_proj"}


@pytest.mark.parametrize("targets", [["nothing"], ["q_proj", "nothing"], ["q_proj", "mlp.q_proj"], ["proj"]])
def test_an_unknown_module_is_refused_with_the_names_there_are(load_tiny: Load, targets: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        _add(load_tiny(), *targets)
    assert targets[-1] in str(caught.value)
    assert all(name in str(caught.value.hint) for name in ALL)


def test_all_linear_beside_a_name_is_refused(load_tiny: Load) -> None:
    with pytest.raises(SettingsError, match="all-linear already covers"):
        _add(load_tiny(), "all-linear", "q_proj")


def test_a_family_without_a_default_is_refused_with_the_names_there_are() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("biogpt", vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(SettingsError) as caught:
        _add(AutoModelForCausalLM.from_config(config), "default")
    assert "q_proj" in str(caught.value.hint)


def test_convolutional_projections_count_as_linear() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("gpt2", vocab_size=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    assert any("c_attn" in path for path in _adapted(_add(AutoModelForCausalLM.from_config(config), "c_attn")))


@pytest.mark.parametrize("how", [{}, {"compute": torch.bfloat16}, {"compute": torch.bfloat16, "quantised": True}])
def test_a_fresh_adapter_changes_no_output_and_is_float32(load_tiny: Load, how: dict[str, Any]) -> None:
    ids = torch.arange(3, 20)[None]
    base = load_tiny(**how).eval()
    with torch.no_grad():
        before = base(input_ids=ids, doc_lengths=(17,)).logits
        model = _add(base, "all-linear", dropout=0.3).eval()
        assert torch.equal(model(input_ids=ids, doc_lengths=(17,)).logits, before)
    parameters = trainable(model)
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    assert all(bool((p == 0).all()) == ("lora_B" in name) for name, p in parameters.items())
    assert all(4 in p.shape for p in parameters.values())


def test_the_seed_alone_decides(load_tiny: Load) -> None:
    torch.manual_seed(99)
    first = trainable(_add(load_tiny(), "all-linear", seed=1))
    torch.manual_seed(7)
    second = trainable(_add(load_tiny(), "all-linear", seed=1))
    other = trainable(_add(load_tiny(), "all-linear", seed=2))
    assert all(torch.equal(p, second[name]) for name, p in first.items())
    assert all(not torch.equal(p, other[name]) for name, p in first.items() if "lora_A" in name)


def test_the_base_is_frozen_and_the_config_names_it_as_the_user_did(load_tiny: Load) -> None:
    model = _add(load_tiny(), "q_proj", rank=8, alpha=32, dropout=0.05)
    assert all("lora_" in name for name in trainable(model))
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 32, 0.05)
    assert config.base_model_name_or_path == "owner/name"


def test_gradient_checkpointing_is_on_only_where_asked(load_tiny: Load) -> None:
    for wanted in (False, True):
        model = _add(load_tiny(), "q_proj")
        prepare_for_training(model, gradient_checkpointing=wanted)
        layers = model.get_base_model().model.layers
        assert [layer.gradient_checkpointing for layer in layers] == [wanted] * len(layers)
