"""A checkpoint in the forms that others read: a PEFT adapter, a merged model, or one ``.ckpt`` file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.card.facts import CardFacts
from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import read_verified, tree_size
from pitstop.checkpointing.disk.strict_json import parse_json, read_json
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store.file_sets import EMA, MODEL_CONFIG, form_of
from pitstop.configs.errors import CheckpointError, RunError
from pitstop.configs.load import settings_to_dict
from pitstop.trainers.machine.device import choose_precision
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.base import load_tokenizer
from pitstop.trainers.models.foreign_code import forget_code
from pitstop.trainers.models.trained import parameter_counts
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.registry import make_task
from pitstop.trainers.training.prepare import BaseOnDisk
from pitstop.trainers.training.resuming import ResumePlan
from pitstop.trainers.using import merging
from pitstop.trainers.using.export_card import export_card, facts_of
from pitstop.trainers.using.export_files import MARKER, check_room, check_target, in_place_of, write_json
from pitstop.trainers.using.opened import find_base, for_inference

ADAPTER, MERGED, CKPT = FORMATS = ("adapter", "merged", "ckpt")
_SMALL_FILES = 64 << 20  # tokenizer, card and what else is beside the weights
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


@dataclass(frozen=True)
class ExportRequest:
    """``base_id``: what an adapter shall name as its base instead of what the run was told."""

    target: Path
    form: str  # one of FORMATS
    max_shard_size: str = "5GB"
    base_id: str | None = None
    force: bool = False


def export(plan: ResumePlan, request: ExportRequest, reporter: Reporter) -> dict[str, Any]:
    """Write the export and return what it is: form, path, size, run and, of a merged model, how it compares.

    It appears whole or not at all. Raises ``SettingsError`` for a place that cannot be used, ``ResourceError`` as the disk says,
    ``ModelError`` and ``CheckpointError`` for a base or checkpoint that cannot.
    """
    check_target(request.target, plan.run.path, directory=request.form != CKPT, force=request.force)
    makers: dict[str, Callable[[ResumePlan, ExportRequest, Reporter], dict[str, Any]]] = {
        ADAPTER: _export_adapter,
        MERGED: _export_merged,
        CKPT: _export_ckpt,
    }
    more = makers[request.form](plan, request, reporter)
    return {
        "format": request.form,
        "path": str(request.target),
        "size_bytes": tree_size(request.target),
        **facts_of(plan),
        **more,
    }


def _base(plan: ResumePlan, reporter: Reporter) -> BaseOnDisk:
    settings = for_inference(plan.settings, on_cuda=False)
    return find_base(plan, choose_precision(settings, torch.device("cpu")), reporter)


def _tokenizer(plan: ResumePlan, base: BaseOnDisk) -> Any:
    return None if plan.settings.training.makes_images else load_tokenizer(base.path)


def base_on_hub(plan: ResumePlan, asked: str | None) -> str | None:
    """The id under which others find the base; None where all that is known is a directory of this machine."""
    if asked is not None:
        return asked
    facts = facts_of(plan)
    return CardFacts(repo="", name="", settings=facts["settings"], metadata={"base_model": facts["base_model"]}).base_on_hub


# adapter ---------------------------------------------------------------------------------------------------------------


def _export_adapter(plan: ResumePlan, request: ExportRequest, reporter: Reporter) -> dict[str, Any]:
    if plan.settings.training.all_weights:
        raise RunError(
            f"{plan.run.label} has no adapter: all weights of its model were trained.", hint="--format merged writes the model."
        )
    check_room(request.target, plan.info.manifest.files[layout.ADAPTER_WEIGHTS].size + _SMALL_FILES)
    base_id = base_on_hub(plan, request.base_id)
    config = parse_json(read_verified(plan.info, layout.ADAPTER_CONFIG))
    if base_id is None:
        reporter.warn(
            f"The base was a directory of this machine: adapter_config.json calls it {config['base_model_name_or_path']}. "
            "--base-id gives an id that others can load."
        )
    else:
        revision = plan.known_base.revision if plan.known_base and request.base_id is None else None
        config |= {"base_model_name_or_path": base_id, **({"revision": revision} if revision else {})}
    tokenizer = _tokenizer(plan, _base(plan, reporter))
    with in_place_of(request.target) as directory:
        directory.mkdir()
        (directory / layout.ADAPTER_WEIGHTS).write_bytes(read_verified(plan.info, layout.ADAPTER_WEIGHTS))
        write_json(directory / layout.ADAPTER_CONFIG, config)
        _write_rest(directory, plan, tokenizer, base_id, merged=False)
    return {"base_id": base_id}


def _write_rest(directory: Path, plan: ResumePlan, tokenizer: Any, base_id: str | None, *, merged: bool) -> None:
    """Tokenizer, card, and the facts for programs."""
    if tokenizer is not None:
        forget_code(tokenizer)
        with quiet_libraries():
            tokenizer.save_pretrained(directory)
    facts = facts_of(plan)
    (directory / "README.md").write_text(export_card(plan, facts, base_id, merged=merged), encoding="utf-8")
    write_json(directory / MARKER, {"format": MERGED if merged else ADAPTER, **facts})


# merged ----------------------------------------------------------------------------------------------------------------


def _export_merged(plan: ResumePlan, request: ExportRequest, reporter: Reporter) -> dict[str, Any]:
    base = _base(plan, reporter)
    if plan.settings.training.makes_images:
        return _export_merged_denoiser(plan, base, request, reporter)
    tokenizer = load_tokenizer(base.path)
    ids = make_task(plan.settings, tokenizer).prompt_ids(merging.PROBE)
    reporter.line("Loading the base and its adapter …")
    adapted, precision = merging.open_for_merging(plan, base)
    _, parameters = parameter_counts(adapted)
    check_room(request.target, 2 * parameters + _SMALL_FILES)
    wanted = merging.logits(adapted, ids, precision)
    with in_place_of(request.target) as directory:
        directory.mkdir()
        reporter.line("Merging and writing …")
        merging.save(merging.merge(adapted), directory, request.max_shard_size)
        del adapted  # before the merged model is loaded
        _write_rest(directory, plan, tokenizer, base_on_hub(plan, request.base_id), merged=True)
        reporter.line("Comparing the merged model with base and adapter …")
        difference = merging.compare_saved(directory, ids, wanted, precision)
    return {"difference": asdict(difference), "parameters": parameters}


def _export_merged_denoiser(plan: ResumePlan, base: BaseOnDisk, request: ExportRequest, reporter: Reporter) -> dict[str, Any]:
    from pitstop.trainers.tasks.diffusion import merging as denoisers

    adapted, _ = merging.open_for_merging(plan, base)
    _, parameters = parameter_counts(adapted)
    check_room(request.target, 4 * parameters + _SMALL_FILES)
    with in_place_of(request.target) as directory:
        reporter.line("Merging and writing …")
        difference = denoisers.merge_into(adapted, directory)
        _write_rest(directory, plan, None, base_on_hub(plan, request.base_id), merged=True)
    return {"image_difference": difference, "parameters": parameters}


# ckpt ------------------------------------------------------------------------------------------------------------------


def _export_ckpt(plan: ResumePlan, request: ExportRequest, reporter: Reporter) -> dict[str, Any]:
    del reporter
    check_room(request.target, plan.info.size + _SMALL_FILES)
    content = ckpt_content(plan)
    with in_place_of(request.target) as file:
        # Tensors, numbers and texts alone, which `torch.load(weights_only=True)` reads. Pitstop never reads such a file itself.
        torch.save(content, file)
    return {"keys": sorted(content)}


def ckpt_content(plan: ResumePlan) -> dict[str, Any]:
    """One dictionary of tensors and plain values.

    Of a base training ``model_state_dict`` has the weights as they were trained, ``ema_state_dict`` their average where one was kept,
    and ``model_config`` what config.json says. Of an adapter ``lora_state_dict`` fits ``load_state_dict(…, strict=False)`` of ``get_peft_model(base, LoraConfig(**lora_config))``, and
    ``optimizer_state_dict`` an optimizer of the class ``optimizer_class`` over the same parameters.
    """
    info, facts = plan.info, facts_of(plan)
    optimizer, kind = _optimizer_state(info.path)
    progress = plan.state["progress"]
    return {
        "epoch": info.epoch,
        "global_step": info.step,
        **_weights(plan),
        "optimizer_state_dict": optimizer,
        "optimizer_class": kind,
        "scheduler_state_dict": {
            "step": info.step,
            "learning_rate": progress["learning_rate"],
            "shape": plan.settings.training.lr_scheduler,
            "warmup_ratio": plan.settings.training.warmup_ratio,
        },
        "metrics": facts["metrics"],
        "config": facts["settings"],
        "base_model": facts["base_model"],
        "run": {key: facts[key] for key in ("run", "name", "checkpoint", "saved_at")},
        "pitstop_version": facts["pitstop_version"],
    }


def _weights(plan: ResumePlan) -> dict[str, Any]:
    path, form = plan.info.path, form_of(settings_to_dict(plan.settings))
    average = {"ema_state_dict": state.read_tensors(path / EMA)} if form.ema else {}
    if form.full_model:
        parts = [state.read_tensors(path / name) for name in form.weights(plan.info.manifest.files.keys())]
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
    names = [name for group in meta["groups"] for name in _parameters(group, directory)]
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


def _parameters(group: Mapping[str, Any], directory: Path) -> list[str]:
    names = group.get("parameters")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{directory / layout.OPTIMIZER_META} does not name the optimizer's parameters.")
    return names


def _known(number: Mapping[str, int], name: str, directory: Path) -> int:
    if name not in number:
        raise CheckpointError(f"{directory / layout.OPTIMIZER}: state of {name[:200]}, a parameter that is not on record.")
    return number[name]


def as_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of ``export`` with the settings left out: they are in the export."""
    return json.loads(json.dumps({key: value for key, value in result.items() if key != "settings"}))
