"""Merging: one plain model whose weights are base plus adapter, summed in float32 and rounded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.configs.errors import ModelError
from pitstop.configs.schema import LoraSettings
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.models.adapter import add_adapter
from pitstop.trainers.using import merging
from support.wrong_models import without

FLOAT32 = Precision(torch.float32, "no")
IDS = list(range(5, 45))


def adapted(base: Any, targets: list[str] | None = None) -> Any:
    """``base`` with an adapter that changes something."""
    model = add_adapter(base, LoraSettings(rank=4, target_modules=targets or ["all-linear"]), seed=1, model_id="tiny")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    return model


def saved_logits(directory: Path) -> torch.Tensor:
    """Of the model in ``directory``, loaded as anybody would."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        return model.float()(input_ids=torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("quantised", [False, True])
def test_each_weight_is_the_float32_sum_rounded_once(load_tiny: Callable[..., Any], quantised: bool) -> None:
    from bitsandbytes.functional import dequantize_4bit

    model = adapted(load_tiny(quantised=quantised), ["q_proj", "down_proj"])
    wanted = {}
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            base = module.base_layer.weight
            plain = dequantize_4bit(base.data, base.quant_state) if quantised else base
            update = (module.lora_B["default"].weight @ module.lora_A["default"].weight) * (64 / 4)
            wanted[f"{name}.weight"] = (plain.float() + update).to(torch.bfloat16)
            assert not torch.equal(wanted[f"{name}.weight"], plain.to(torch.bfloat16))
    assert len(wanted) == 4
    found = merging.merge(model).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert not [name for name in found if "lora" in name or "base_layer" in name or "absmax" in name]


def test_a_merged_model_that_lacks_a_tensor_is_no_export(load_tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Loaded again it would have a random one in its place."""
    model = adapted(load_tiny())
    wanted = merging.logits(model, IDS, FLOAT32)
    merging.save(merging.merge(model), tmp_path / "out", "5GB")
    without("model.norm.weight")(tmp_path / "out")
    with pytest.raises(ModelError, match=r"model\.norm\.weight"):
        merging.compare_saved(tmp_path / "out", IDS, wanted, FLOAT32)


@pytest.mark.parametrize("quantised", [False, True])
def test_what_is_saved_gives_the_logits_of_base_and_adapter(
    load_tiny: Callable[..., Any], tmp_path: Path, quantised: bool
) -> None:
    model = adapted(load_tiny(quantised=quantised))
    wanted = merging.logits(model, IDS, FLOAT32)
    with model.disable_adapter():
        without = merging.logits(model, IDS, FLOAT32)
    merging.save(merging.merge(model), tmp_path / "out", "100KB")
    found = saved_logits(tmp_path / "out")
    assert (wanted - without).abs().max() > 0.5
    assert (found - wanted).abs().max() < 0.02
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3
    difference = merging.compare_saved(tmp_path / "out", IDS, wanted, FLOAT32)
    assert difference.largest == pytest.approx(float((found - wanted).abs().max()))
    assert (difference.tokens, difference.largest_logit) == (40, pytest.approx(float(wanted.abs().max())))
    assert merging.compare_saved(tmp_path / "out", IDS, without, FLOAT32).largest > 0.5
    config = (tmp_path / "out" / "config.json").read_text()
    assert "quantization" not in config and '"use_cache": true' in config


def test_layers_that_keep_their_weights_the_other_way_round_are_merged_too(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=1, n_head=2)).requires_grad_(False)
    model = adapted(base, ["c_attn"])
    wanted = merging.logits(model, IDS, FLOAT32)
    with model.disable_adapter():
        assert (wanted - merging.logits(model, IDS, FLOAT32)).abs().max() > 0.05
    merging.save(merging.merge(model), tmp_path / "out", "5GB")
    assert (saved_logits(tmp_path / "out") - wanted).abs().max() < 0.01


def test_an_output_layer_that_shares_the_embeddings_gets_a_weight_of_its_own(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, int] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=True)
    model = adapted(LlamaForCausalLM(config).requires_grad_(False), ["lm_head"])
    wanted = merging.logits(model, IDS, FLOAT32)
    merging.save(merging.merge(model), tmp_path / "out", "5GB")
    assert '"tie_word_embeddings": false' in (tmp_path / "out" / "config.json").read_text()
    assert (saved_logits(tmp_path / "out") - wanted).abs().max() < 0.02


def test_a_model_that_gives_no_numbers_is_refused(load_tiny: Callable[..., Any], tmp_path: Path) -> None:
    from pitstop.configs.errors import CheckpointError

    model = adapted(load_tiny())
    wanted = merging.logits(model, IDS, FLOAT32)
    merged: Any = merging.merge(model)
    merged.lm_head.weight.data.fill_(torch.nan)
    merging.save(merged, tmp_path / "out", "5GB")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        merging.compare_saved(tmp_path / "out", IDS, wanted, FLOAT32)
