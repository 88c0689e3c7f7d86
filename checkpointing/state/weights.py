"""The weights of any ``nn.Module`` as files of a checkpoint, and back: an adapter, what trains, or everything.

``adapter``: a PEFT model; the files are those that ``PeftModel.from_pretrained`` reads. ``trained``: a model without PEFT
whose frozen part is saved as the run's base. ``full``: any other; with a Transformers model ``from_pretrained`` reads it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import FileContent
from pitstop.checkpointing.disk.tensor_headers import DTYPES
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError, ModelError

BESIDE = "beside_adapter.safetensors"
"""What trains or changes in a PEFT model and is no part of the adapter: buffers, and parameters that the user unfroze."""

ADAPTER, TRAINED, FULL = "adapter", "trained", "full"
KINDS = (ADAPTER, TRAINED, FULL)

_TORCH_NAMES = {
    getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
assert len(_TORCH_NAMES) == len(DTYPES)


@dataclass(frozen=True)
class Weights:
    """Files with a model's weights and what trainer_state.json must say of them to put them back."""

    kind: str
    files: Mapping[str, FileContent]
    names: Mapping[str, str] = field(default_factory=dict)
    """Tensors of the adapter's file whose name there is not the model's: file name → name in ``model.state_dict()``."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names in ``model.state_dict()`` that share memory with one that is saved: alias → saved name."""

    def description(self) -> dict[str, Any]:
        """JSON-able, for trainer_state.json."""
        return {"kind": self.kind, "names": dict(self.names), "aliases": dict(self.aliases)}


def is_peft(model: torch.nn.Module) -> bool:
    """Whether ``model`` is a ``PeftModel``; PEFT is not imported for asking."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """``model`` without what DistributedDataParallel and ``torch.compile`` put around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def take(model: torch.nn.Module, *, base_saved: bool) -> Weights:
    """The weights of ``model`` as they are now. ``base_saved``: the run has what is frozen in it as its base.

    ``CheckpointError`` for what cannot be saved without pickle, and for a PEFT model with several adapters.
    """
    if is_peft(model):
        return _take_adapter(model)
    tensors = _state_dict(model)
    partly = base_saved and any(not parameter.requires_grad for parameter in model.parameters())
    if partly:
        changing = _changing(model)
        tensors = {name: tensor for name, tensor in tensors.items() if name in changing}
    distinct, aliases = without_aliases(tensors)
    files: dict[str, FileContent] = {file_sets.WEIGHTS: to_safetensors(distinct)}
    if not partly:
        files |= config_files(model)
    return Weights(TRAINED if partly else FULL, files, aliases=aliases)


def _take_adapter(model: Any) -> Weights:
    if len(model.peft_config) != 1:
        raise CheckpointError(
            f"the model has the adapters {', '.join(sorted(model.peft_config))}; a checkpoint holds one",
            hint="delete the others with model.delete_adapter(name)",
        )
    live = _state_dict(model)
    stored, names = _adapter_tensors(model, live)
    outside = {name: live[name] for name in sorted(_changing(model) - set(names.values())) if name in live}
    files: dict[str, FileContent] = {
        layout.ADAPTER_WEIGHTS: to_safetensors(stored),
        layout.ADAPTER_CONFIG: state.to_json(state.adapter_config(model)),
    }
    distinct, aliases = without_aliases(outside)
    if distinct:
        files[BESIDE] = to_safetensors(distinct)
    return Weights(ADAPTER, files, {name: real for name, real in names.items() if name != real}, aliases)


def _adapter_tensors(model: Any, live: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The adapter's tensors under the names of its file, and from these names those that they have in ``live``, the model's state."""
    from peft import get_peft_model_state_dict

    # Told explicitly: left to itself PEFT may ask the Hub whether the vocabulary was resized.
    stored = dict(get_peft_model_state_dict(model, state_dict=live, save_embedding_layers=False))
    by_identity = {id(tensor): name for name, tensor in live.items()}
    return stored, {name: by_identity[id(tensor)] for name, tensor in stored.items() if id(tensor) in by_identity}


def _state_dict(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    tensors = dict(model.state_dict())
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{name} in the model's state is a {type(value).__name__}, not a tensor",
                hint="modules with get_extra_state() are saved only where that gives a tensor; nothing is ever pickled",
            )
        _check_tensor(name, value)
    return tensors


def _check_tensor(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_meta or tensor.is_sparse or type(tensor).__name__ == "DTensor":
        raise CheckpointError(f"{name} is on no device, sparse or sharded, and cannot be saved", hint="gather the model first")
    if tensor.dtype not in _TORCH_NAMES:
        raise CheckpointError(f"{name} is {tensor.dtype}, which checkpoints do not hold", hint="convert it first")


def _changing(model: torch.nn.Module) -> set[str]:
    """The names of what training changes: parameters that train, under each of their names, and persistent buffers."""
    training = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    persistent = set(model.state_dict())
    return training | {name for name, _ in model.named_buffers(remove_duplicate=False) if name in persistent}


def without_aliases(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """``tensors`` with one name each, the first, and the other names of the same memory."""
    first: dict[tuple[Any, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        original = first.setdefault(place, name) if tensor.numel() else name
        if original != name:
            aliases[name] = original
    return {name: tensor for name, tensor in tensors.items() if name not in aliases}, aliases


def to_safetensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """One safetensors file. Each tensor is copied: two that overlap in memory are two in the file."""
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return bytes(safetensors.torch.save(copies, metadata={"format": "pt"}))


def config_files(model: Any) -> dict[str, bytes]:
    """The configuration that Transformers needs to read the weights with ``from_pretrained``; nothing for other models."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(model, transformers.PreTrainedModel):
        return {}
    config = json.loads(model.config.to_json_string(use_diff=False))
    config |= {"architectures": [type(model).__name__], "_name_or_path": ""}  # a path of this machine says nothing elsewhere
    return {file_sets.MODEL_CONFIG: state.to_json(config)}


def read(directory: Path, description: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of a verified checkpoint under the names of ``model.state_dict()``, on the CPU. ``CheckpointError``."""
    adapter = description["kind"] == ADAPTER
    tensors = state.read_tensors(directory / (layout.ADAPTER_WEIGHTS if adapter else file_sets.WEIGHTS))
    named = {description["names"].get(name, name): tensor for name, tensor in tensors.items()}
    if adapter and (directory / BESIDE).exists():
        named |= state.read_tensors(directory / BESIDE)
    return with_aliases(named, description["aliases"], directory)


def with_aliases(tensors: Mapping[str, torch.Tensor], aliases: Mapping[str, str], directory: Path) -> dict[str, torch.Tensor]:
    """``tensors`` under all their names. ``CheckpointError`` for an alias of nothing."""
    if unknown := sorted(set(aliases.values()) - tensors.keys()):
        raise CheckpointError(f"{directory}: {unknown[0][:200]} is not in the file with the weights")
    return {**tensors, **{alias: tensors[name] for alias, name in aliases.items()}}


def load(model: torch.nn.Module, directory: Path, description: Mapping[str, Any]) -> None:
    """Put a verified checkpoint's weights into ``model``, in place.

    Nothing is changed unless names, shapes and types are those that the model has: ``CheckpointError`` says what is not.
    """
    tensors = read(directory, description)
    if description["kind"] == ADAPTER:
        if not is_peft(model):
            raise CheckpointError(f"{directory} holds a PEFT adapter; the model is a {type(model).__name__} without one")
        of_adapter = _adapter_tensors(model, model.state_dict())[1].values()
        outside = {name: tensors[name] for name in tensors.keys() & (_changing(model) - set(of_adapter))}
        check_fit(model, outside, directory)
        state.load_adapter(model, directory)
        model.load_state_dict(outside, strict=False)
        return
    if is_peft(model):
        raise CheckpointError(f"{directory} holds a whole model; this one has a PEFT adapter on it")
    required = model.state_dict().keys() if description["kind"] == FULL else _changing(model)
    check_fit(model, tensors, directory, required)
    model.load_state_dict(tensors, strict=description["kind"] == FULL)


def check_fit(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], directory: Path, required: Any = None) -> None:
    """``CheckpointError`` unless ``model`` has each of ``tensors`` in that shape and type, and ``required`` names them all."""
    live = model.state_dict()
    names = tensors.keys() & live.keys()
    if required is not None:
        if frozen := sorted(names - set(required)):
            raise CheckpointError(f"{directory} does not fit the model: {frozen[0]} does not train in the model")
        names = set(required)
    state.check_fit(tensors, {name: live[name] for name in names}, directory)


@dataclass(frozen=True)
class Base:
    """The frozen part of a model: ``tensors`` by plain name, and the names that they have in the model where those differ."""

    tensors: Mapping[str, torch.Tensor]
    names: Mapping[str, str]
    aliases: Mapping[str, str]
    config: Mapping[str, bytes]

    buffers: frozenset[str]
    """Those of ``tensors`` that training may change (running means, say); every checkpoint has them too."""

    def digest(self) -> str:
        """SHA-256 of names, types, shapes and bytes: equal bases are stored once."""
        return self._digest(self.tensors)

    def frozen_digest(self) -> str:
        """The same of what cannot have changed since the base was saved."""
        return self._digest({name: tensor for name, tensor in self.tensors.items() if name not in self.buffers})

    def _digest(self, tensors: Mapping[str, torch.Tensor]) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            flat = tensor.detach().to("cpu").contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy() if flat.numel() else b"")
        for name, content in sorted(self.config.items()):
            digest.update(f"{name}\0".encode() + content)
        return digest.hexdigest()

    def write(self, directory: Path) -> None:
        """Write the files into an empty directory."""
        for name, content in {file_sets.WEIGHTS: to_safetensors(self.tensors), **self.config}.items():
            (directory / name).write_bytes(content)


def base_of(model: torch.nn.Module) -> Base:
    """What of ``model`` never changes in training: all but the adapter, or all that is frozen, or (nothing is) everything.

    ``ModelError`` for a model with nothing in it to save.
    """
    live = _state_dict(model)
    if is_peft(model):
        plain = dict(_plain_names(model, live))
        config = config_files(model.get_base_model())
    else:
        frozen = any(not parameter.requires_grad for parameter in model.parameters())
        training = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
        plain = {name: name for name in live if not (frozen and name in training)}
        config = config_files(model) if plain.keys() == live.keys() else {}
    distinct, aliases = without_aliases({name: live[real] for name, real in plain.items()})
    if not distinct:
        raise ModelError("the model has no parameters or buffers to save as its base")
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    changing = frozenset(name for name, real in plain.items() if real in buffers)
    return Base(distinct, {name: real for name, real in plain.items() if name != real}, aliases, config, changing)


def read_base(directory: Path, names: Mapping[str, str], aliases: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """A verified base under the names of the model that it was saved from (``Base.names`` and ``aliases``), on the CPU."""
    tensors = with_aliases(state.read_tensors(directory / file_sets.WEIGHTS), aliases, directory)
    return {names.get(name, name): tensor for name, tensor in tensors.items()}


def _plain_names(model: Any, live: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, str]]:
    """Each tensor of a PEFT model's base: its name in the base itself, and in the model."""
    prefix = getattr(model.base_model, "prefix", None)
    for name in live:
        parts = name.removeprefix("base_model.model.").split(".")
        if "modules_to_save" in parts or (prefix and any(part.startswith(prefix) for part in parts)):
            continue
        yield ".".join(part for part in parts if part not in ("base_layer", "original_module")), name
