"""Training state to files and back: safetensors and JSON, never pickle. With ``snapshot`` the only module here that imports torch.

Every function that reads raises ``CheckpointError`` for what is missing or does not fit: a part of the state that is
not there is damage, not a default.
"""

from __future__ import annotations

import json
import random
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from pitstop.checkpointing.disk import layout, strict_json, tensor_headers
from pitstop.checkpointing.store import file_sets
from pitstop.checkpointing.store.portable_paths import portable_value
from pitstop.checkpointing.store.vetting import check_optimizer_meta
from pitstop.configs.errors import CheckpointError, first_line

_SEPARATOR = "::"
# What may differ between the adapter of a checkpoint and that of the resumed run; the base is checked against the settings.
_FREE_ADAPTER_KEYS = {"lora_dropout", "base_model_name_or_path", "revision", "inference_mode", "peft_version"}
_BLOCK = 256  # numbers that share one scale in bitsandbytes' 8-bit state


def to_json(value: Any) -> bytes:
    """Stable JSON: sorted keys, sets as sorted lists, floats by ``repr`` (which round-trips exactly)."""
    return (json.dumps(value, indent=2, sort_keys=True, default=_plain, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return str(value)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file of a checkpoint onto the CPU, its header checked before the library sees it."""
    tensor_headers.read_header(path)
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def adapter_tensors(model: Any, adapter: str = "default") -> dict[str, torch.Tensor]:
    """The adapter's live tensors under the names that ``PeftModel.from_pretrained`` reads. ``model`` is a ``PeftModel``."""
    from peft import get_peft_model_state_dict

    # Told explicitly: left to itself PEFT may ask the Hub whether the vocabulary was resized.
    return dict(get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False))


def adapter_config(model: Any) -> dict[str, Any]:
    """The adapter's configuration as PEFT reads it back, for inference; of a base in a directory it holds the name alone."""
    config = dict(model.peft_config[model.active_adapter].to_dict())
    return config | {"inference_mode": True, "base_model_name_or_path": portable_value(config["base_model_name_or_path"])}


def load_adapter(model: Any, directory: Path, adapter: str = "default") -> None:
    """Put a checkpoint's adapter weights into that adapter of ``model``, in place; names, shapes and types must be those it expects.

    The checkpoint's adapter config must describe the adapter that the settings have built. Nothing is changed unless all fits.
    """
    from peft import set_peft_model_state_dict

    stored = read_tensors(directory / layout.ADAPTER_WEIGHTS)
    check_fit(stored, adapter_tensors(model, adapter), directory / layout.ADAPTER_WEIGHTS)
    _check_adapter_config(model.peft_config[adapter], directory / layout.ADAPTER_CONFIG)
    set_peft_model_state_dict(model, stored, adapter_name=adapter)


def load_average(live: Mapping[str, torch.Tensor], directory: Path) -> None:
    """Put a checkpoint's moving average into ``live``, the tensors that hold it by the names that they are saved under."""
    stored = read_tensors(directory / file_sets.EMA)
    check_fit(stored, live, directory / file_sets.EMA)
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(stored[name])


def check_fit(stored: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: Path) -> None:
    """Names, shapes and types in the file ``path`` must be those that the model expects."""
    problems = [f"{name} is missing" for name in sorted(expected.keys() - stored.keys())]
    problems += [f"{name} is unknown to the model" for name in sorted(stored.keys() - expected.keys())]
    for name in sorted(expected.keys() & stored.keys()):
        if (stored[name].shape, stored[name].dtype) != (expected[name].shape, expected[name].dtype):
            problems.append(
                f"{name} is {stored[name].dtype} {tuple(stored[name].shape)}, wanted {expected[name].dtype} {tuple(expected[name].shape)}"
            )
    if problems:
        raise CheckpointError(f"{path} does not fit the model: {problems[0]} ({len(problems)} differences).")


def check_loaded(live: Mapping[str, torch.Tensor], directory: Path, files: Sequence[str]) -> None:
    """Make sure that a library has loaded a whole model from the weights ``files`` in ``directory`` bit for bit, each tensor in its type.

    ``live`` are the model's tensors by the names that they are saved under.
    """
    seen: set[str] = set()
    for file in files:
        stored = read_tensors(directory / file)
        check_fit(stored, {name: live[name] for name in stored if name in live}, directory / file)
        for name, tensor in stored.items():
            if not torch.equal(
                live[name].detach().cpu().contiguous().view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)
            ):
                raise CheckpointError(f"{directory / file}: {name} did not come back as it was saved.")
        seen |= stored.keys()
    if missing := sorted(live.keys() - seen):
        raise CheckpointError(
            f"{directory / files[0]} does not fit the model: {missing[0]} is missing ({len(missing)} differences)."
        )


def _check_adapter_config(config: Any, path: Path) -> None:
    stored = strict_json.read_json(path)
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: a JSON object is expected")
    expected = json.loads(to_json(config.to_dict()))
    for name in sorted((stored.keys() | expected.keys()) - _FREE_ADAPTER_KEYS):
        # Another version of PEFT may have more options or fewer: one that is off changes nothing.
        if name not in expected and not stored[name]:
            continue
        if name in stored and stored[name] != expected.get(name):
            excerpt = reprlib.repr(stored[name])
            raise CheckpointError(
                f"{path} does not fit the model: {name[:80]} is {excerpt}, wanted {reprlib.repr(expected.get(name))}."
            )
    if missing := sorted({"peft_type", "r", "lora_alpha", "target_modules"} - stored.keys()):
        raise CheckpointError(f"{path} does not fit the model: {', '.join(missing)} is missing.")


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

    The optimizer's own groups (learning rate, weight decay) stand: they come from the settings in force. An optimizer whose
    state does not fit stays as it was.
    """
    meta = check_optimizer_meta(strict_json.read_json(directory / layout.OPTIMIZER_META), directory / layout.OPTIMIZER_META)
    if meta["class"] != type(optimizer).__name__:
        raise CheckpointError(
            f"{directory.name} was saved with the optimizer {meta['class'][:40]}, this run uses {type(optimizer).__name__}.",
            hint="Resume with the same --optimizer, or start a new run.",
        )
    stored = read_tensors(directory / layout.OPTIMIZER)
    if sorted(stored) != meta["tensors"]:
        raise CheckpointError(f"{directory / layout.OPTIMIZER} does not hold the tensors that {layout.OPTIMIZER_META} lists.")
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    groups = [group.get("parameters") for group in meta["groups"]]
    if [name for group in groups if isinstance(group, list) for name in group] != [names[id(p)] for p in parameters]:
        raise CheckpointError(f"{directory / layout.OPTIMIZER_META}: its parameters are not those of the model.")
    if not stored and not meta["scalars"]:
        return  # the optimizer has not stepped yet
    state = _state_by_name(stored, meta["scalars"], directory)
    if unknown := sorted(state.keys() - {names[id(p)] for p in parameters}):
        raise CheckpointError(
            f"{directory / layout.OPTIMIZER}: state of {unknown[0][:200]}, a parameter that the model does not have."
        )
    for parameter in parameters:
        if problem := unfit(parameter, state.get(names[id(parameter)], {})):
            raise CheckpointError(f"{directory / layout.OPTIMIZER}: {problem} of {names[id(parameter)]}.")
    previous = {"state": optimizer.state, "param_groups": optimizer.param_groups}
    numbered = {number: state[names[id(p)]] for number, p in enumerate(parameters)}
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})
    try:
        _check_restored(optimizer, names, stored, directory)
    except CheckpointError:
        optimizer.__setstate__(previous)
        raise


def _state_by_name(
    stored: Mapping[str, torch.Tensor], scalars: Mapping[str, Mapping[str, Any]], directory: Path
) -> dict[str, dict[str, Any]]:
    state: dict[str, dict[str, Any]] = {}
    for full_name, tensor in stored.items():
        name, _, key = full_name.rpartition(_SEPARATOR)
        state.setdefault(name, {})[key] = tensor
    for name, values in scalars.items():
        if state.setdefault(name, {}).keys() & values.keys():
            raise CheckpointError(f"{directory / layout.OPTIMIZER_META}: {name[:200]} has a number and a tensor of one name.")
        state[name].update(values)
    return state


def unfit(parameter: torch.Tensor, values: Mapping[str, Any]) -> str | None:
    """What is wrong with one parameter's state. Kernels index by these sizes: a wrong one would read beyond a buffer."""
    moments_32 = (tuple(parameter.shape), torch.float32)
    if "exp_avg" in values:
        number: Any = ((), torch.float32)
        moments = (tuple(parameter.shape), parameter.dtype)
        expected = {"step": number, "exp_avg": moments, "exp_avg_sq": moments}
    elif "qmap1" in values:
        small = (tuple(parameter.shape), torch.uint8)
        map_, scales = ((_BLOCK,), torch.float32), ((-(-parameter.numel() // _BLOCK),), torch.float32)
        expected = {
            "state1": small, "state2": small, "qmap1": map_, "qmap2": map_, "absmax1": scales, "absmax2": scales, "step": int,
        }  # fmt: skip
    else:
        expected = {"state1": moments_32, "state2": moments_32, "step": int}
    if values.keys() != expected.keys():
        return f"{', '.join(sorted(values.keys() ^ expected.keys()))} is missing or unknown in the state"
    for key, form in expected.items():
        value = values[key]
        if form is int:
            if type(value) is not int or not 0 <= value < 2**31:
                return f"{reprlib.repr(value)} as {key}"
        elif not isinstance(value, torch.Tensor) or (tuple(value.shape), value.dtype) != form:
            return f"{key} has not the shape and type {form}, in the state"
    return None


def _check_restored(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], stored: Mapping[str, torch.Tensor], directory: Path
) -> None:
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if not isinstance(value, torch.Tensor):
                continue
            saved = stored[f"{names[id(parameter)]}{_SEPARATOR}{key}"]
            if value.dtype != saved.dtype or not torch.equal(value.cpu(), saved):
                raise CheckpointError(
                    f"{directory / layout.OPTIMIZER}: {key} of {names[id(parameter)]} did not come back as it was saved."
                )


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


@dataclass(frozen=True)
class RandomState:
    """A saved state that every generator has been found to take."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch_cpu: torch.Tensor
    torch_cuda: list[torch.Tensor]
    torch_mps: torch.Tensor | None


def restore_rng(path: Path) -> None:
    """Set every generator of this process to a saved state, or none of them."""
    state = check_rng(path)
    random.setstate(state.python)
    np.random.set_state(state.numpy)
    torch.set_rng_state(state.torch_cpu)
    if torch.cuda.is_available() and len(state.torch_cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state.torch_cuda)
    if torch.backends.mps.is_available() and state.torch_mps is not None:
        torch.mps.set_rng_state(state.torch_mps)


def check_rng(path: Path) -> RandomState:
    """What ``restore_rng`` restores from this file, tried on generators of its own. ``CheckpointError``."""
    content = strict_json.read_json(path)
    try:
        if content.keys() != {"python", "numpy", "torch_cpu", "torch_cuda", "torch_mps"}:
            raise ValueError("a generator is missing or unknown")
        state = RandomState(
            _python_state(content["python"]),
            _numpy_state(content["numpy"]),
            _unhex(content["torch_cpu"]),
            [_unhex(text) for text in content["torch_cuda"]],
            None if content["torch_mps"] is None else _unhex(content["torch_mps"]),
        )
        random.Random().setstate(state.python)
        np.random.RandomState().set_state(state.numpy)
        torch.Generator().set_state(state.torch_cpu)
        if torch.cuda.is_available() and len(state.torch_cuda) == torch.cuda.device_count():
            for number, value in enumerate(state.torch_cuda):
                torch.Generator(f"cuda:{number}").set_state(value)
    except (LookupError, TypeError, ValueError, OverflowError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a random state that this version can restore: {first_line(error)[:200]}") from error
    return state


def _python_state(value: Any) -> tuple[Any, ...]:
    version, internal, gauss = value
    if not isinstance(internal, list) or not (gauss is None or type(gauss) is float):
        raise ValueError("the state of Python's generator is malformed")
    return (version, tuple(internal), gauss)


def _numpy_state(value: Any) -> tuple[Any, ...]:
    """NumPy itself takes any position, and would then draw from the memory behind its table."""
    kind, keys, position, has_gauss, cached = value
    if kind != "MT19937" or not isinstance(keys, list) or len(keys) != 624 or not all(type(key) is int for key in keys):
        raise ValueError("the state of NumPy's generator is malformed")
    if type(position) is not int or not 0 <= position <= 624 or has_gauss not in (0, 1) or type(cached) is not float:
        raise ValueError("the state of NumPy's generator is malformed")
    return (kind, np.array(keys, dtype=np.uint32), position, int(has_gauss), cached)


def seed_everything(seed: int) -> None:
    """Seed every generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # every device's generator too


def _hex(tensor: torch.Tensor) -> str:
    return tensor.cpu().numpy().tobytes().hex()


def _unhex(text: Any) -> torch.Tensor:
    if not isinstance(text, str) or not text:
        raise ValueError("the state of a generator is empty or not a text")
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
