"""A base and its adapter as one plain model: each weight is dequantised, added to in float32 and cast once to bfloat16.

The model of a base training is one already, and only cast.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pitstop.checkpointing.state import state
from pitstop.configs.errors import CheckpointError, ModelError, first_line
from pitstop.trainers.machine.device import Precision, choose_precision
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.adapter import add_adapter, bare_model
from pitstop.trainers.models.base import BaseRecipe, untie
from pitstop.trainers.models.fit import Fit
from pitstop.trainers.models.foreign_code import forget_code
from pitstop.trainers.models.generation import answering_mode
from pitstop.trainers.tasks.registry import family_of
from pitstop.trainers.tasks.text import TextTask
from pitstop.trainers.training.building import BaseOnDisk
from pitstop.trainers.training.chosen import ChosenCheckpoint
from pitstop.trainers.using.opened import for_inference, task_of

PROBE = "The patient was given aspirin for a headache, and metformin for type 2 diabetes. Which drugs are these, and why?"
"""The text on which the merged model is compared with the base and its adapter."""

MERGED = torch.bfloat16


@dataclass(frozen=True)
class Difference:
    """How far the logits of the merged model are from those of base and adapter, on the tokens of ``PROBE``."""

    largest: float  # of all absolute differences
    largest_logit: float  # of base and adapter, absolute: what the difference compares with
    same_choice: float  # share of the positions at which the same token is the most likely
    tokens: int


def probe_ids(chosen: ChosenCheckpoint, tokenizer: Any) -> list[int]:
    """``PROBE`` as the checkpoint's task renders a prompt."""
    task = task_of(chosen, tokenizer)
    assert isinstance(task, TextTask)
    return task.prompt_ids(PROBE)


def open_for_merging(chosen: ChosenCheckpoint, base: BaseOnDisk) -> tuple[Any, Precision]:
    """What the checkpoint answers with, on the processor: there is more memory than on a card, and merging is one pass."""
    device = torch.device("cpu")
    settings = for_inference(chosen.settings, on_cuda=False)
    precision = choose_precision(settings, device)
    recipe = BaseRecipe.from_settings(settings, precision)
    all_weights = settings.training.all_weights
    # As a run would that starts from it: with the average of the weights, where one was kept.
    stored = base.stored and not all_weights
    family = family_of(settings)
    model = family.load(base.path, recipe, device, stored=stored, flash=False, frozen=True)
    if all_weights:
        return model, precision
    form = family.adapter_form(model, settings)
    adapted = add_adapter(model, settings.lora, seed=0, model_id=str(settings.model.id), form=form)
    state.load_adapter(adapted, chosen.info.path)
    return adapted, precision


def merge(adapted: Any) -> nn.Module:
    """Make ``adapted`` (a ``PeftModel``, or a plain model) a plain one in bfloat16, layer by layer and in place, and return that.

    At any time there is one layer in two forms. W + s·BA (Hu et al. 2021) is summed in float32; a 4-bit W is what the
    forward pass expands it to.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: nn.Module = bare_model(adapted)
    layers = [(name, module) for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, layer in layers:
        update = layer.get_delta_weight("default").float()
        base.set_submodule(name, _plain(layer.get_base_layer(), update))
    expand(base)
    for parameter in base.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(MERGED)
    _forget_quantisation(base)
    untie(base)
    return base


def expand(base: nn.Module) -> None:
    """Make the 4-bit layers of ``base`` plain ones in bfloat16, with the weights that the forward pass multiplies with.

    The outputs are the same to the bit. On a processor answers to a few prompts come up to half again as fast: otherwise
    every weight is expanded for every token.
    """
    quantised = [(name, module) for name, module in base.named_modules() if _is_quantised(module)]
    for name, module in quantised:
        base.set_submodule(name, _plain(module, None))


def _is_quantised(module: nn.Module) -> bool:
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


def _plain(layer: Any, update: torch.Tensor | None) -> nn.Module:
    """The layer with ``update`` added to its weight (both in the layer's own orientation), not quantised, in bfloat16."""
    weight = _expanded(layer)
    if update is not None:
        weight = weight.float() + update
    merged = nn.Parameter(weight.to(MERGED), requires_grad=False)
    if not _is_quantised(layer):
        layer.weight = merged
        return layer
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = merged
    plain.bias = layer.bias
    return plain


def _expanded(layer: Any) -> torch.Tensor:
    """The weight as the forward pass multiplies with it."""
    weight = layer.weight
    if not _is_quantised(layer):
        return weight.data
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def _forget_quantisation(base: Any) -> None:
    """Take off what would have transformers save and load the weights as 4-bit ones."""
    for owner, name in ((base.config, "quantization_config"), (base, "hf_quantizer"), (base, "quantization_method")):
        vars(owner).pop(name, None)
    base.is_loaded_in_4bit = base.is_quantized = False
    conversions = getattr(base, "_weight_conversions", None)
    if conversions is not None:  # by which transformers would turn the weights back into the form they were read in
        base._weight_conversions = [
            conversion
            for conversion in conversions
            if not any(hasattr(operation, "hf_quantizer") for operation in getattr(conversion, "operations", None) or ())
        ]


def save(merged: Any, directory: Path, max_shard_size: str) -> None:
    """Write safetensors of at most ``max_shard_size`` with config.json and generation_config.json."""
    for item in (merged.config, getattr(merged, "generation_config", None)):
        forget_code(item)
    merged.config.use_cache = True  # training has no use for the cache, whoever serves the model has
    merged.set_attn_implementation("sdpa" if getattr(merged, "_supports_sdpa", False) else "eager")
    with quiet_libraries():
        merged.save_pretrained(directory, max_shard_size=max_shard_size)


@torch.no_grad()
def logits(model: Any, ids: Sequence[int], precision: Precision) -> torch.Tensor:
    """Logits, float32 of shape ``(tokens, vocabulary)``, in the precision that the device computes in."""
    with answering_mode(model) as base, torch.autocast("cpu", precision.compute, enabled=precision.mixed != "no"):
        return base(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()


def compare_saved(directory: Path, ids: Sequence[int], expected: torch.Tensor, precision: Precision) -> Difference:
    """Load what was saved as anybody would and hold its logits against ``expected``, those of base and adapter.

    Raises ``ModelError`` where it does not load, ``CheckpointError`` where it gives no numbers.
    """
    from transformers import AutoModelForCausalLM

    gc.collect()  # the model that was merged
    with quiet_libraries():
        try:
            model, loading_info = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=precision.compute,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"The merged model does not load again: {first_line(error)}") from error
    Fit.of(loading_info).check(directory, model)
    saved = logits(model, ids, precision)
    if not bool(torch.isfinite(saved).all()):
        raise CheckpointError("The merged model gives logits with NaN or infinity.", hint="Export another checkpoint of the run.")
    return Difference(
        largest=float((saved - expected).abs().max()),
        largest_logit=float(expected.abs().max()),
        same_choice=float((saved.argmax(-1) == expected.argmax(-1)).float().mean()),
        tokens=len(ids),
    )
