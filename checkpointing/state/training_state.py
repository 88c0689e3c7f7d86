"""Everything beside the weights that an exact resume needs, from the objects of somebody else's training loop to files and back.

A checkpoint of ``CheckpointManager`` holds the weights (``weights``), ``optimizer.json`` and ``optimizer.safetensors``, a random
state, and ``trainer_state.json`` with all else; tensors of the latter are in ``extra.safetensors``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk import layout, strict_json
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.disk.storage import FileContent
from pitstop.checkpointing.state import codec, state, weights
from pitstop.configs.errors import CheckpointError

FORMAT_VERSION = 1
EXTRA = "extra.safetensors"

_KEYS = {"format_version", "made_by", "weights", "settings", "scheduler", "scaler", "extra", "environment"}
_OPTIMIZER_KEYS = {"format_version", "single", "optimizers"}

Optimizers = Any  # one torch.optim.Optimizer, or a sequence of them
Schedulers = Any


def many(objects_: Any) -> list[Any]:
    """One object or a sequence of them, as a list; [] for None.

    Accelerate's wrappers are taken off: its optimizer and scheduler change the state that they hand out.
    """
    items = [] if objects_ is None else list(objects_) if isinstance(objects_, Sequence) else [objects_]
    for number, item in enumerate(items):
        if type(item).__module__.startswith("accelerate."):
            items[number] = getattr(item, "optimizer", None) or getattr(item, "scheduler", None) or item
    return items


@dataclass(frozen=True)
class Parts:
    """What a checkpoint is made of beside the weights. ``extra`` is whatever the loop wants back, of plain objects and tensors."""

    optimizer: Optimizers = None
    scheduler: Schedulers = None
    scaler: Any = None
    extra: Any = None


def files(
    model: torch.nn.Module, model_weights: weights.Weights, parts: Parts, settings: Mapping[str, Any], environment: Any
) -> dict[str, FileContent]:
    """The files of a checkpoint, copies of the state as it is now. ``CheckpointError`` for what cannot be saved without pickle."""
    file_contents: dict[str, FileContent] = dict(model_weights.files)
    if parts.optimizer is not None:
        file_contents |= _optimizer_files(parts.optimizer, _names(model))
    tensors: dict[str, torch.Tensor] = {}
    schedulers: Any = [scheduler.state_dict() for scheduler in many(parts.scheduler)]
    if not isinstance(parts.scheduler, Sequence):
        schedulers = schedulers[0] if schedulers else None
    content = {
        "format_version": FORMAT_VERSION,
        layout.MADE_BY: layout.MANAGER,
        "weights": model_weights.description(),
        "settings": settings,
        "environment": environment,
        "scheduler": codec.encode(schedulers, tensors, "scheduler"),
        "scaler": codec.encode(None if parts.scaler is None else parts.scaler.state_dict(), tensors, "scaler"),
        "extra": codec.encode(parts.extra, tensors, "extra"),
    }
    if tensors:
        file_contents[EXTRA] = weights.to_safetensors(tensors)
    file_contents[layout.TRAINER_STATE] = state.to_json(content)
    file_contents[layout.rng_file(0)] = state.rng_state()
    return file_contents


def _names(model: torch.nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in weights.unwrapped(model).named_parameters()}


def _optimizer_files(optimizer: Optimizers, names: Mapping[int, str]) -> dict[str, FileContent]:
    tensors: dict[str, torch.Tensor] = {}
    described = []
    for number, single in enumerate(many(optimizer)):
        content = codec.encode(single.state_dict(), tensors, str(number))
        described.append({"class": type(single).__name__, "parameters": _parameter_names(single, names), "state": content})
    meta = {"format_version": FORMAT_VERSION, "single": not isinstance(optimizer, Sequence), "optimizers": described}
    return {layout.OPTIMIZER: weights.to_safetensors(tensors), layout.OPTIMIZER_META: state.to_json(meta)}


def _parameter_names(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> list[str | None]:
    """The model's name of each parameter, in the optimizer's order; None for one that the model does not have."""
    return [names.get(id(parameter)) for group in optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True)
class Saved:
    """The content of a verified checkpoint beside its weights. State dictionaries are None where none was saved."""

    info: CheckpointInfo
    weights: Mapping[str, Any]
    settings: Mapping[str, Any]
    optimizers: list[dict[str, Any]] | None
    optimizer_is_single: bool
    schedulers: list[dict[str, Any]] | None
    scheduler_is_single: bool
    scaler: dict[str, Any] | None
    extra: Any


def read(info: CheckpointInfo) -> Saved:
    """The content of a verified checkpoint. ``CheckpointError`` where it is none of ``CheckpointManager``'s, or names what is wrong."""
    path = info.path / layout.TRAINER_STATE
    content = strict_json.read_json(path)
    if not isinstance(content, dict) or content.get(layout.MADE_BY) != layout.MANAGER:
        raise CheckpointError(
            f"{info.path} was not saved by a CheckpointManager",
            hint="`pitstop resume` continues runs of `pitstop train`, and PeftModel.from_pretrained reads the directory",
        )
    if content.get("format_version") != FORMAT_VERSION or content.keys() != _KEYS or not _describes(content["weights"]):
        raise CheckpointError(f"{path}: not a state that this version can read")
    tensor_names = sorted(name for key in ("scheduler", "scaler", "extra") for name in codec.tensors_in(content[key]))
    tensors = state.read_tensors(info.path / EXTRA) if tensor_names else {}
    optimizers, single = _read_optimizers(info.path)
    scheduler, scaler, extra = (codec.decode(content[key], tensors, str(path)) for key in ("scheduler", "scaler", "extra"))
    return Saved(
        info,
        weights=content["weights"],
        settings=content["settings"],
        optimizers=optimizers,
        optimizer_is_single=single,
        schedulers=[scheduler] if isinstance(scheduler, dict) else scheduler,
        scheduler_is_single=not isinstance(scheduler, list),
        scaler=scaler,
        extra=extra,
    )


def _describes(description: Any) -> bool:
    if not isinstance(description, dict) or description.keys() != {"kind", "names", "aliases"}:
        return False
    maps = (description["names"], description["aliases"])
    texts = all(isinstance(names, dict) and all(isinstance(value, str) for value in names.values()) for names in maps)
    return texts and description["kind"] in weights.KINDS


def _read_optimizers(directory: Path) -> tuple[list[dict[str, Any]] | None, bool]:
    path = directory / layout.OPTIMIZER_META
    if not path.exists():
        return None, True
    meta = strict_json.read_json(path)
    if not isinstance(meta, dict) or meta.keys() != _OPTIMIZER_KEYS or not isinstance(meta["optimizers"], list):
        raise CheckpointError(f"{path} does not describe an optimizer")
    tensors = state.read_tensors(directory / layout.OPTIMIZER)
    if sorted(tensors) != codec.tensors_in(meta["optimizers"]):
        raise CheckpointError(f"{directory / layout.OPTIMIZER} does not hold the tensors that {layout.OPTIMIZER_META} lists")
    entries = codec.decode(meta["optimizers"], tensors, str(path))
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != {"class", "parameters", "state"}:
            raise CheckpointError(f"{path} does not describe an optimizer")
    return entries, bool(meta["single"])


def restore_optimizers(optimizer: Optimizers, saved: Saved, model: torch.nn.Module) -> None:
    """Put the optimizers' state back, hyperparameters included, and check that each tensor came back bit for bit.

    ``CheckpointError`` where the checkpoint has none, or of another class or for other parameters; nothing is changed then.
    """
    optimizers = many(optimizer)
    entries = _as_many("optimizer", saved.optimizers, len(optimizers), saved.info.path)
    names = _names(model)
    for target, entry in zip(optimizers, entries, strict=True):
        _check_optimizer(target, entry, names, saved.info.path)
    for target, entry in zip(optimizers, entries, strict=True):
        _restore_optimizer(target, entry["state"], saved.info.path)


def _as_many(kind: str, entries: Sequence[Any] | None, count: int, directory: Path) -> Sequence[Any]:
    """``entries`` if they are as many as are to be restored. ``CheckpointError`` otherwise."""
    if entries is None or len(entries) != count:
        raise CheckpointError(
            f"{directory} holds the state of {len(entries or ())} {kind}(s), {count} are to be restored",
            hint=f"save with {kind}=, or leave the {kind} out here",
        )
    return entries


def _check_optimizer(
    optimizer: torch.optim.Optimizer, entry: Mapping[str, Any], names: Mapping[int, str], directory: Path
) -> None:
    if entry["class"] != type(optimizer).__name__:
        raise CheckpointError(
            f"{directory} was saved with the optimizer {str(entry['class'])[:40]}, this is {type(optimizer).__name__}"
        )
    if entry["parameters"] != _parameter_names(optimizer, names):
        raise CheckpointError(f"{directory}: the optimizer's parameters are not those of the model, or in another order")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in entry["state"]["state"].items():
        # bitsandbytes' kernels index by these sizes: a wrong one would read beyond a buffer.
        native = isinstance(values, Mapping) and ("state1" in values or "qmap1" in values)
        fields = {key: values[key] for key in values if not key.startswith("_")} if native else {}
        if native and (problem := state.unfit(parameters[number], fields)):
            raise CheckpointError(f"{directory / layout.OPTIMIZER}: {problem} of {entry['parameters'][number]}")


def _restore_optimizer(optimizer: torch.optim.Optimizer, content: dict[str, Any], directory: Path) -> None:
    try:
        optimizer.load_state_dict(content)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{directory}: the optimizer does not take its state: {error}") from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in content["state"].items():
        for key, saved in values.items():
            if isinstance(saved, torch.Tensor):
                _put_exactly(optimizer.state[parameters[number]], key, saved, directory)


def _put_exactly(values: dict[str, Any], key: str, saved: torch.Tensor, directory: Path) -> None:
    loaded = values.get(key)
    if not isinstance(loaded, torch.Tensor):
        raise CheckpointError(f"{directory / layout.OPTIMIZER}: {key} did not come back")
    if loaded.dtype != saved.dtype:  # torch casts what belongs to a bfloat16 parameter to bfloat16
        values[key] = loaded = saved.to(loaded.device)
    is_exact = (
        torch.equal(loaded.detach().cpu().contiguous().view(torch.uint8), saved.contiguous().view(torch.uint8))
        if loaded.dim()
        else (loaded.item() == saved.item())
    )
    if not is_exact:
        raise CheckpointError(f"{directory / layout.OPTIMIZER}: {key} did not come back as it was saved")


def restore_schedulers(scheduler: Schedulers, saved: Saved) -> None:
    """Put the schedulers' state back. ``CheckpointError`` where the checkpoint has none or another number of them."""
    schedulers = many(scheduler)
    entries = _as_many("scheduler", saved.schedulers, len(schedulers), saved.info.path)
    for target, content in zip(schedulers, entries, strict=True):
        target.load_state_dict(content)


def restore_random_state(saved: Saved) -> None:
    """Set every generator of this process (Python, NumPy, torch) to where it stood. ``CheckpointError``."""
    state.restore_rng(saved.info.path / layout.rng_file(0))
