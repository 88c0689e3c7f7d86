"""The LoRA adapter on a frozen base, through PEFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import LoraSettings
from pitstop.trainers.machine.libraries import quiet_libraries


@dataclass(frozen=True)
class AdapterForm:
    """What PEFT is told of a family of models.

    ``targets`` are the modules that "all-linear" and "default" mean, by the ends of their paths; None leaves both to PEFT, which
    knows the models of transformers. ``ranks`` are regular expressions of paths with the rank of what they match, where that is not the common one; alpha
    keeps its proportion to the rank.
    """

    task_type: str | None = "CAUSAL_LM"
    targets: tuple[str, ...] | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)


def add_adapter(model: nn.Module, settings: LoraSettings, *, seed: int, model_id: str, form: AdapterForm | None = None) -> Any:
    """Wrap ``model`` with a fresh adapter; A is drawn from ``seed``, B is zero, both float32.

    Raises ``SettingsError`` for target modules that the model does not have.
    """
    from peft import get_peft_model

    form = form or AdapterForm()
    config = _lora_config(settings, _target_modules(model, settings.target_modules, form), model_id, form)
    torch.manual_seed(seed)
    with quiet_libraries():
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            if "target" not in str(error).lower():
                raise
            raise SettingsError(
                f"LORA_TARGET_MODULES = {','.join(settings.target_modules)}: the model has no such modules.",
                hint=f"Its linear layers are named: {', '.join(_linear_names(model))}. Or use all-linear.",
            ) from error
    # get_peft_model overwrites this with the path that the base was loaded from, which means nothing elsewhere.
    adapted.peft_config["default"].base_model_name_or_path = model_id
    return adapted


def add_another(
    model: Any, settings: LoraSettings, name: str, targets: Sequence[str], *, model_id: str, form: AdapterForm | None = None
) -> None:
    """Put a further adapter on the modules ``targets`` of a ``PeftModel``'s base; ``model.set_adapter`` chooses among them."""
    with quiet_libraries():
        model.add_adapter(name, _lora_config(settings, list(targets), model_id, form or AdapterForm()))
    model.peft_config[name].base_model_name_or_path = model_id


def _lora_config(settings: LoraSettings, targets: str | list[str] | None, model_id: str, form: AdapterForm) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type=form.task_type,
        rank_pattern=dict(form.ranks),
        alpha_pattern={path: settings.alpha * rank / settings.rank for path, rank in form.ranks.items()},
        base_model_name_or_path=model_id,
    )


def bare_model(model: Any) -> Any:
    """The model without an adapter's wrapping; one that has none is itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def prepare_for_training(model: Any, *, gradient_checkpointing: bool) -> None:
    """Turn on gradient checkpointing where asked, and let gradients reach the adapters through the frozen embeddings."""
    if not gradient_checkpointing:
        return
    with quiet_libraries():
        if hasattr(model, "peft_config"):
            model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def share_inputs_under_autocast(model: nn.Module) -> None:
    """Let the adapters of q, k and v keep one copy of their common input for the backward pass, not one each.

    PEFT casts an adapter's input to the adapter's float32, and autocast casts that copy back to 16 bits; without the
    first cast the input is used as it is. The values are the same.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False


def _target_modules(model: nn.Module, names: Sequence[str], form: AdapterForm) -> str | list[str] | None:
    if form.targets is not None and list(names) in (["default"], ["all-linear"]):
        return list(form.targets)
    if list(names) == ["default"]:
        return None  # PEFT's table of the family's usual modules; it raises where it has no entry
    if "all-linear" in names and len(names) > 1:
        raise SettingsError(
            f"LORA_TARGET_MODULES = {','.join(names)}: all-linear already covers every name.", hint="Give all-linear alone."
        )
    if list(names) == ["all-linear"]:
        return "all-linear"
    paths = _linear_paths(model)
    missing = [name for name in names if not any(f".{path}".endswith(f".{name}") for path in paths)]
    if missing:
        raise SettingsError(
            f"LORA_TARGET_MODULES: the model has no linear layer named {', '.join(missing)}.",
            hint=f"It has: {', '.join(_linear_names(model))}. Or use all-linear.",
        )
    return list(names)


def _linear_names(model: nn.Module) -> list[str]:
    return sorted({path.split(".")[-1] for path in _linear_paths(model)})


def _linear_paths(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"]
