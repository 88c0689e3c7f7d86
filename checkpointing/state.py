"""Training state to files and back: safetensors and JSON, never pickle. With ``snapshot`` the only module here that imports torch.

Every function that reads raises ``CheckpointError`` for what is missing or does not fit: a part of the state that is
not there is damage, not a default.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from pitstop.checkpointing import layout
from pitstop.configs.errors import CheckpointError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_META = "optimizer.json"
TRAINER_STATE = layout.TRAINER_STATE
_SEPARATOR = "::"
_MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "state1", "state2"})  # one number for each of the parameter's


def rng_file(rank: int) -> str:
    """Name of the file with one process's random state."""
    return f"rng_state_{rank}.json"


def to_json(value: Any) -> bytes:
    """Stable JSON: sorted keys, sets as sorted lists, floats by ``repr`` (which round-trips exactly)."""
    return (json.dumps(value, indent=2, sort_keys=True, default=_plain, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return str(value)


def read_json(path: Path) -> Any:
    """Parse a JSON file of a checkpoint."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file of a checkpoint onto the CPU."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


# Adapter ---------------------------------------------------------------------------------------------------------------


def adapter_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The adapter's live tensors under the names that ``PeftModel.from_pretrained`` reads. ``model`` is a ``PeftModel``."""
    from peft import get_peft_model_state_dict

    # Told explicitly: left to itself PEFT may ask the Hub whether the vocabulary was resized.
    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def adapter_config(model: Any) -> dict[str, Any]:
    """The adapter's configuration as PEFT reads it back, for inference."""
    return dict(model.peft_config[model.active_adapter].to_dict()) | {"inference_mode": True}


def load_adapter(model: Any, directory: Path) -> None:
    """Put a checkpoint's adapter weights into ``model``, in place; names, shapes and types must be those it expects."""
    from peft import set_peft_model_state_dict

    stored = read_tensors(directory / ADAPTER_WEIGHTS)
    wanted = adapter_tensors(model)
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - stored.keys())]
    problems += [f"{name} is unknown to the model" for name in sorted(stored.keys() - wanted.keys())]
    for name in wanted.keys() & stored.keys():
        if (stored[name].shape, stored[name].dtype) != (wanted[name].shape, wanted[name].dtype):
            problems.append(
                f"{name} is {stored[name].dtype} {tuple(stored[name].shape)}, wanted {wanted[name].dtype} {tuple(wanted[name].shape)}"
            )
    if problems:
        raise CheckpointError(
            f"{directory / ADAPTER_WEIGHTS} does not fit the model: {problems[0]} ({len(problems)} differences)."
        )
    set_peft_model_state_dict(model, stored)


# Optimizer -------------------------------------------------------------------------------------------------------------


def optimizer_parts(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The optimizer's live tensors by parameter name, and a copy of all else. ``names`` maps ``id(parameter)`` to its name."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state.items():
        name = names[id(parameter)]
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}{_SEPARATOR}{key}"] = value
            else:
                scalars.setdefault(name, {})[key] = value
    groups = [
        {key: value for key, value in group.items() if key != "params"} | {"parameters": [names[id(p)] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    return tensors, {"class": type(optimizer).__name__, "groups": groups, "scalars": scalars, "tensors": sorted(tensors)}


def load_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str], directory: Path) -> None:
    """Restore an optimizer and check that every tensor came back bit for bit, in its own type.

    The optimizer's own groups (learning rate, weight decay) stand: they come from the settings in force.
    """
    meta = read_json(directory / OPTIMIZER_META)
    if not isinstance(meta, dict):
        raise CheckpointError(f"{directory / OPTIMIZER_META} does not describe an optimizer.")
    if meta.get("class") != type(optimizer).__name__:
        raise CheckpointError(
            f"{directory.name} was saved with the optimizer {meta.get('class')}, this run uses {type(optimizer).__name__}.",
            hint="Resume with the same --optimizer, or start a new run.",
        )
    stored = read_tensors(directory / OPTIMIZER)
    if sorted(stored) != meta.get("tensors"):
        raise CheckpointError(f"{directory / OPTIMIZER} does not hold the tensors that {OPTIMIZER_META} lists.")
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    index = {names[id(p)]: number for number, p in enumerate(parameters)}
    state: dict[int, dict[str, Any]] = {number: {} for number in index.values()}
    try:
        for full_name, tensor in stored.items():
            name, key = full_name.rsplit(_SEPARATOR, 1)
            if key in _MOMENTS and tensor.shape != parameters[index[name]].shape:
                raise CheckpointError(f"{directory / OPTIMIZER}: {key} of {name} has the shape {tuple(tensor.shape)}.")
            state[index[name]][key] = tensor
        for name, values in meta["scalars"].items():
            state[index[name]].update(values)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{directory / OPTIMIZER}: state of a parameter that the model does not have: {error}") from error
    if stored and any(not values for values in state.values()):
        raise CheckpointError(f"{directory / OPTIMIZER}: some parameters have no state.")
    if stored:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    _check_restored(optimizer, names, stored, directory)


def _check_restored(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], stored: Mapping[str, torch.Tensor], directory: Path
) -> None:
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if not isinstance(value, torch.Tensor):
                continue
            wanted = stored[f"{names[id(parameter)]}{_SEPARATOR}{key}"]
            if value.dtype != wanted.dtype or not torch.equal(value.cpu(), wanted):
                raise CheckpointError(
                    f"{directory / OPTIMIZER}: {key} of {names[id(parameter)]} did not come back as it was saved."
                )


# Random state ----------------------------------------------------------------------------------------------------------


def rng_state() -> bytes:
    """The state of every generator of this process: Python, NumPy, torch on the CPU and on each CUDA device, MPS."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch_cpu": _hex(torch.get_rng_state()),
        "torch_cuda": [_hex(s) for s in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "torch_mps": _hex(torch.mps.get_rng_state()) if torch.backends.mps.is_available() else None,
    }
    return (json.dumps(state, sort_keys=True) + "\n").encode()


def restore_rng(path: Path) -> None:
    """Set every generator of this process to a saved state."""
    state = read_json(path)
    try:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
        torch.set_rng_state(_unhex(state["torch_cpu"]))
        if torch.cuda.is_available() and len(state["torch_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([_unhex(s) for s in state["torch_cuda"]])
        if torch.backends.mps.is_available() and state["torch_mps"]:
            torch.mps.set_rng_state(_unhex(state["torch_mps"]))
    except (LookupError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a random state that this version can restore: {error}") from error


def seed_everything(seed: int) -> None:
    """Seed every generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # every device's generator too


def _hex(tensor: torch.Tensor) -> str:
    return tensor.cpu().numpy().tobytes().hex()


def _unhex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
