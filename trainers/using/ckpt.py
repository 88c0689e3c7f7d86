"""A checkpoint as one dictionary, the content of a ``.ckpt`` file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.strict_json import read_json
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store.file_sets import EMA, MODEL_CONFIG, form_of
from pitstop.configs.errors import CheckpointError
from pitstop.configs.load import settings_to_dict
from pitstop.trainers.training.chosen import ChosenCheckpoint
from pitstop.trainers.using.export_card import Facts

_LORA_KEYS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "task_type",
    "bias",
    "fan_in_fan_out",
)
_PARAMETER = re.compile(r"\.(lora_\w+)(?=\.weight$)")


def ckpt_content(chosen: ChosenCheckpoint, facts: Facts) -> dict[str, Any]:
    """One dictionary of tensors and plain values.

    Of a base training ``model_state_dict`` has the weights as they were trained, ``ema_state_dict`` their average where one was kept,
    and ``model_config`` what config.json says. Of an adapter ``lora_state_dict`` fits ``load_state_dict(…, strict=False)`` of ``get_peft_model(base, LoraConfig(**lora_config))``, and
    ``optimizer_state_dict`` an optimizer of the class ``optimizer_class`` over the same parameters.
    """
    info = chosen.info
    optimizer, kind = _optimizer_state(info.path)
    progress = chosen.trainer_state["progress"]
    return {
        "epoch": info.epoch,
        "global_step": info.step,
        **_weights(chosen),
        "optimizer_state_dict": optimizer,
        "optimizer_class": kind,
        "scheduler_state_dict": {
            "step": info.step,
            "learning_rate": progress["learning_rate"],
            "shape": chosen.settings.training.lr_scheduler,
            "warmup_ratio": chosen.settings.training.warmup_ratio,
        },
        "metrics": facts["metrics"],
        "config": facts["settings"],
        "base_model": facts["base_model"],
        "run": {key: facts[key] for key in ("run", "name", "checkpoint", "saved_at")},
        "pitstop_version": facts["pitstop_version"],
    }


def _weights(chosen: ChosenCheckpoint) -> dict[str, Any]:
    path, form = chosen.info.path, form_of(settings_to_dict(chosen.settings))
    average = {"ema_state_dict": state.read_tensors(path / EMA)} if form.ema else {}
    if form.full_model:
        parts = [state.read_tensors(path / name) for name in form.weights(chosen.info.manifest.files.keys())]
        weights = {name: tensor for part in parts for name, tensor in part.items()}
        return {"model_state_dict": weights, "model_config": read_json(path / MODEL_CONFIG), **average}
    config = read_json(path / layout.ADAPTER_CONFIG)
    adapter = state.read_tensors(path / layout.ADAPTER_WEIGHTS)
    return {
        "lora_state_dict": {_PARAMETER.sub(r".\1.default", name): tensor for name, tensor in adapter.items()},
        "lora_config": {key: config[key] for key in _LORA_KEYS if key in config},
        **average,
    }


def _optimizer_state(directory: Path) -> tuple[dict[str, Any], str]:
    """What ``torch.optim.Optimizer.load_state_dict`` takes, and the optimizer's class."""
    meta = read_json(directory / layout.OPTIMIZER_META)
    named = [group.get("parameters") for group in meta["groups"]]
    if not all(isinstance(group, list) and all(isinstance(name, str) for name in group) for group in named):
        raise CheckpointError(f"{directory / layout.OPTIMIZER_META} does not name the optimizer's parameters.")
    names = [name for group in named for name in group]
    number = {name: position for position, name in enumerate(names)}
    values: dict[int, dict[str, Any]] = {}
    for full_name, tensor in state.read_tensors(directory / layout.OPTIMIZER).items():
        name, _, key = full_name.rpartition("::")
        values.setdefault(_known(number, name, directory), {})[key] = tensor
    for name, scalars in meta["scalars"].items():
        values.setdefault(_known(number, name, directory), {}).update(scalars)
    groups = []
    for group in meta["groups"]:
        plain = {key: tuple(value) if key == "betas" else value for key, value in group.items() if key != "parameters"}
        groups.append({**plain, "params": [number[name] for name in group["parameters"]]})
    return {"state": values, "param_groups": groups}, meta["class"]


def _known(number: Mapping[str, int], name: str, directory: Path) -> int:
    if name not in number:
        raise CheckpointError(f"{directory / layout.OPTIMIZER}: state of {name[:200]}, a parameter that is not on record.")
    return number[name]
