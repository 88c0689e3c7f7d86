"""The frozen base: quantised or 16-bit, loaded from its source or from the copy that the runs share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pitstop.configs.errors import ModelError
from pitstop.configs.schema import Settings
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models import attention
from pitstop.trainers.models.fit import Fit, reason
from pitstop.trainers.models.foreign_code import check_stored, forget_code, needs_code


@dataclass(frozen=True)
class BaseRecipe:
    """How the base is stored and computed with."""

    quantised: bool
    quant_type: str
    double_quant: bool
    compute: torch.dtype
    template: str = ""  # the chat template that the copy's tokenizer has in place of its own

    @classmethod
    def from_settings(cls, settings: Settings, precision: Precision) -> BaseRecipe:
        """The recipe that the settings ask for on a device with this precision."""
        chosen = settings.quantization.compute_dtype
        compute = precision.compute if chosen == "auto" else getattr(torch, chosen)
        return cls(
            quantised=settings.training.method == "qlora",
            quant_type=settings.quantization.quant_type,
            double_quant=settings.quantization.use_double_quant,
            # Small updates are lost in 16-bit weights: the whole model is kept in 32 bits, and autocast computes in fewer.
            compute=torch.float32 if settings.training.all_weights else compute,
            template=settings.data.chat_template_text,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able description; part of the shared copy's digest."""
        dtype = str(self.compute).removeprefix("torch.")
        template = {"template": self.template} if self.template else {}
        if not self.quantised:
            return {"dtype": dtype, **template}
        return {
            **template,
            "dtype": dtype,
            "quant_type": self.quant_type,
            "double_quant": self.double_quant,
            "library": "bitsandbytes",
        }

    def quantization_config(self) -> Any:
        """bitsandbytes' config for transformers, or ``None`` for 16-bit weights."""
        if not self.quantised:
            return None
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self.compute,
        )


def load_base(
    path: Path, recipe: BaseRecipe, device: torch.device, *, stored: bool, flash: bool, frozen: bool = True
) -> nn.Module:
    """Load a causal language model, whatever architecture ``AutoModelForCausalLM`` knows.

    ``stored`` says that ``path`` already holds the weights in the recipe's form (a 4-bit copy is then read as it is);
    without ``frozen`` all parameters are to be trained.
    Raises ``ModelError`` for what transformers cannot load, for weights that are not all there or have other shapes, and for 4-bit
    weights on a device without kernels.
    """
    if recipe.quantised and device.type == "mps":
        raise ModelError("4-bit bases need CUDA or a CPU; Apple's MPS has no kernels for them.", hint="Train with --method lora.")
    if stored:
        check_stored(path)
    with quiet_libraries():
        try:
            model, loading_info = _pretrained(path, recipe, device, stored=stored, flash=flash)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if "trust_remote_code" in str(error):
                raise needs_code(path, "auto_map in config.json") from error
            raise ModelError(
                f"Cannot load the base model in {path}: {reason(error)}",
                hint="Check that the directory is complete and the architecture known to transformers.",
            ) from error
    Fit.of(loading_info).check(path, model)
    untie(model)
    _keep_trainable_kernels(model)
    _compute_in(model, recipe)
    if frozen:
        model.config.use_cache = False
    model.requires_grad_(not frozen)
    loaded: nn.Module = model
    return loaded


def _pretrained(path: Path, recipe: BaseRecipe, device: torch.device, *, stored: bool, flash: bool) -> tuple[Any, dict[str, Any]]:
    """The model, and what was missing, beside it or of another shape: transformers puts random numbers into what it lacks."""
    from transformers import AutoModelForCausalLM

    attention.register()
    # A stored 4-bit copy names its own quantisation, which an explicit None would switch off.
    quantise = {"quantization_config": recipe.quantization_config()} if recipe.quantised and not stored else {}
    load: Callable[..., tuple[Any, dict[str, Any]]] = functools.partial(
        AutoModelForCausalLM.from_pretrained,
        path,
        **quantise,
        dtype=recipe.compute,
        device_map={"": str(device)},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # what does not fit is refused by name; otherwise the error would name nothing
        output_loading_info=True,
    )
    try:
        return load(attn_implementation="flash_attention_2" if flash else attention.IMPLEMENTATION)
    except KeyError as error:
        if error.args != (attention.IMPLEMENTATION,):
            raise
        return load()  # older architectures (GPT-J, Falcon) choose among attention classes of their own


def untie(base: Any) -> None:
    """Have the config say so where the output layer has a weight of its own: from the file, or because an adapter gave it one.

    Tied again they would be when the model is saved and loaded.
    """
    ends = (base.get_output_embeddings(), base.get_input_embeddings())
    weights = {getattr(end, "weight", None) for end in ends}
    config = base.config.get_text_config()
    if None not in weights and len(weights) > 1 and getattr(config, "tie_word_embeddings", False):
        config.tie_word_embeddings = base.config.tie_word_embeddings = False


def _keep_trainable_kernels(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for its CPU inference kernel during an evaluation.

    That kernel has no backward pass, and the weights stay repacked when training goes on: gradients would be wrong
    without an error (seen with bitsandbytes 0.50).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _compute_in(model: nn.Module, recipe: BaseRecipe) -> None:
    """Let 4-bit layers multiply in this machine's type, whatever the one that a stored copy was made on chose."""
    for module in model.modules():
        if recipe.quantised and hasattr(module, "compute_dtype"):
            module.compute_dtype = recipe.compute


def save_base(model: nn.Module, tokenizer: Any, directory: Path) -> None:
    """Write the base as it is trained on (4-bit if quantised) with its tokenizer: safetensors and JSON, no reference to code."""
    for item in (model.config, getattr(model, "generation_config", None), tokenizer):
        forget_code(item)
    implementation = model.config._attn_implementation
    with quiet_libraries():
        model.set_attn_implementation("sdpa")  # ours means nothing to whoever loads these files
        try:
            model.save_pretrained(directory)
        finally:
            model.set_attn_implementation(implementation)
        tokenizer.save_pretrained(directory)
    check_stored(directory)


def has_flash_attention(device: torch.device) -> bool:
    """Whether FlashAttention 2 can be used here."""
    from transformers.utils import is_flash_attn_2_available

    return device.type == "cuda" and bool(is_flash_attn_2_available())
