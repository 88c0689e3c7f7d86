"""What of a model is trained and saved: an adapter on a frozen base, or all of it. The loop, the saver and resuming ask nothing else."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.state import state
from pitstop.checkpointing.state.snapshot import AdapterBuffer, Buffer, ModelBuffer
from pitstop.checkpointing.store import file_sets
from pitstop.checkpointing.store.model_files import check_model
from pitstop.configs.errors import CheckpointError, SettingsError
from pitstop.trainers.models.family import Family


class Trained(Protocol):
    """The weights that training changes."""

    @property
    def model(self) -> Any:
        """The module that is called and whose parameters with gradients are trained."""

    @property
    def bare(self) -> nn.Module:
        """The module without an adapter's wrapping."""

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Live tensors by the names that a checkpoint has them under."""

    def buffer(self, *, pinned: bool) -> Buffer:
        """Takes snapshots of them, with the files that lie beside them."""

    def restore(self, directory: Path) -> None:
        """Have the weights of the verified checkpoint in ``directory``. ``CheckpointError`` for what does not fit."""


class TrainedAdapter:
    """A LoRA adapter: ``model`` is a ``PeftModel``."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def bare(self) -> nn.Module:
        bare: nn.Module = self.model.get_base_model()
        return bare

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return state.adapter_tensors(self.model)

    def buffer(self, *, pinned: bool) -> Buffer:
        return AdapterBuffer(self.model, pinned=pinned)

    def restore(self, directory: Path) -> None:
        state.load_adapter(self.model, directory)


class WholeModel:
    """All weights of ``model``. ``files`` lie beside them in every checkpoint of the run."""

    def __init__(self, model: nn.Module, family: Family, files: Mapping[str, bytes], shard_bytes: int) -> None:
        self.model: Any = model
        self._family, self._files, self._shard_bytes = family, files, shard_bytes

    @property
    def bare(self) -> nn.Module:
        bare: nn.Module = self.model
        return bare

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return self._family.tensors(self.model)

    def check_averaged(self) -> None:
        """``SettingsError`` where the file has tensors that are not the model's own memory: an average could not be put back."""
        addresses = {tensor.data_ptr() for tensor in self.model.state_dict().values()}
        if converted := sorted(name for name, tensor in self.tensors().items() if tensor.data_ptr() not in addresses):
            raise SettingsError(
                f"EMA_DECAY: {type(self.model).__name__} is saved in another form than it is trained in ({converted[0]}).",
                hint="Leave --ema-decay out for this architecture.",
            )

    def buffer(self, *, pinned: bool) -> Buffer:
        return ModelBuffer(self.tensors, self._files, shard_bytes=self._shard_bytes, pinned=pinned)

    def restore(self, directory: Path) -> None:
        """The model was loaded from this directory: make sure that every tensor came back bit for bit, and nothing else did."""
        names = [path.name for path in directory.iterdir()]
        state.check_loaded(self.tensors(), directory, file_sets.Form(full_model=True).weights(names))


def stored_descriptions(directory: Path) -> dict[str, bytes]:
    """The files beside the weights in a checkpoint of a whole model, which all later ones of the run repeat byte for byte."""
    weights = {file_sets.WEIGHTS_INDEX, *file_sets.Form(full_model=True).weights([path.name for path in directory.iterdir()])}
    paths = [path for path in sorted(directory.iterdir()) if file_sets.is_model_file(path.name) and path.name not in weights]
    return {path.name: path.read_bytes() for path in paths}


def parameter_counts(model: Any) -> tuple[int, int]:
    """Trainable and all parameters; 4-bit ones count as what they stand for."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def check_size(directory: Path, model: nn.Module) -> None:
    """The weights in ``directory`` must be as many numbers as ``model`` (without weights) has, before memory is taken for them."""
    names = [path.name for path in directory.iterdir()]
    entries = check_model(directory, [name for name in names if file_sets.is_model_file(name)])
    numbers = sum(math.prod(entry.shape) for entry in entries.values())
    saved = set(model.state_dict())
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    expected = sum({id(tensor): tensor.numel() for name, tensor in named if name in saved}.values())
    if numbers != expected:
        raise CheckpointError(
            f"{directory}: its weights are {numbers:,} numbers, its {file_sets.MODEL_CONFIG} describes {expected:,}"
        )


def evaluated_files(path: Path) -> dict[str, Path]:
    """The files of a model by the names that they are looked for under; of a checkpoint with an average that stands for the weights."""
    names = [file.name for file in path.iterdir()]
    if not ((path / file_sets.EMA).is_file() and (path / layout.MANIFEST).is_file()):
        return {name: path / name for name in names}
    return {name: path / file for name, file in file_sets.Form(full_model=True, ema=True).served(names).items()}


@contextlib.contextmanager
def as_evaluated(path: Path) -> Iterator[Path]:
    """The directory of a model, or of a checkpoint with an average a view in which that stands for the weights."""
    files = evaluated_files(path)
    if all(file.name == name for name, file in files.items()):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="pitstop-") as scratch:
        for name, file in files.items():
            (Path(scratch) / name).symlink_to(file.absolute())
        yield Path(scratch)
