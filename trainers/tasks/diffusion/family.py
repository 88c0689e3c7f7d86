"""DiffiT networks as a family of models: config.json and safetensors in a directory, as all models lie."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from pitstop.checkpointing.disk.storage import read_regular_file
from pitstop.checkpointing.disk.tensor_headers import TensorEntry, read_header
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store import file_sets
from pitstop.checkpointing.store.model_files import MAX_BYTES
from pitstop.configs.errors import CheckpointError, ModelError, SettingsError, first_line
from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.models.adapter import AdapterForm, bare_model
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.cost import Cost
from pitstop.trainers.models.fit import Fit, Tell
from pitstop.trainers.models.source import KnownBase, ModelSource, find_model
from pitstop.trainers.models.trained import check_size, evaluated_files
from pitstop.trainers.tasks.diffusion.config import SIZES, DiffiTConfig, named_size
from pitstop.trainers.tasks.diffusion.model import DiffiT
from pitstop.trainers.tasks.diffusion.objective import DenoisingObjective

_HINT = f"Sizes that come with Pitstop: {', '.join(SIZES)}; or copy the config.json of a base training and change it."

_SAFETENSORS = "Take weights that are safetensors."

LORA_TARGETS = ("q_space", "k_space", "v_space", "q_time", "k_time", "v_time", "attention.out", "mlp.fc1", "mlp.fc2")
"""The linear layers of a block, by the ends of their paths."""


class DiffiTFamily:
    """See ``family.Family``. Weights are float32, frozen or not: they are small, and the precision of training is autocast's."""

    def find(self, settings: Settings, recorded: KnownBase | None) -> ModelSource:
        """A directory, a model on the Hub, a checkpoint of a base training, or a size from scratch."""
        if settings.model.from_scratch:
            return _from_scratch(settings)
        source = find_model(settings, recorded)
        read_config(source)
        return source

    def tokenizer(self, source: ModelSource) -> DiffiTConfig:
        """What images have to be like is what the configuration says."""
        return read_config(source)

    def check(self, source: ModelSource, tell: Tell) -> nn.Module:
        """Names and shapes of all tensors; nothing may be there beside them."""
        del tell
        model = self.without_weights(source)
        if source.config is not None or source.is_copy:
            return model
        files = evaluated_files(source.path)
        entries = stored_entries([files[name] for name in file_sets.Form(full_model=True).weights(files)])
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        fit = Fit.of_shapes({name: entry.shape for name, entry in entries.items()}, expected)
        fit.check(source.path, model)
        if fit.unexpected:
            raise ModelError(
                f"The weights in {source.path} have tensors that its {file_sets.MODEL_CONFIG} does not describe: {fit.unexpected[0]}.",
                hint="Take both from the same model.",
            )
        return model

    def load(self, path: Path, recipe: BaseRecipe, device: torch.device, *, stored: bool, flash: bool, frozen: bool) -> nn.Module:
        """Read config.json and the safetensors; of a checkpoint that another run starts from the average, if it has one."""
        del recipe, flash
        config = _config_in(path / file_sets.MODEL_CONFIG)
        if stored and not frozen:
            check_size(path, _on_meta(config))
        files = {file.name: file for file in path.iterdir()} if stored else evaluated_files(path)
        weights = _weights(path, [files[name] for name in file_sets.Form(full_model=True).weights(files)], config)
        with torch.random.fork_rng(devices=[]):  # building draws weights, which these replace
            model = DiffiT(config)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError(
                f"{path}: its weights are not those that its {file_sets.MODEL_CONFIG} describes: {first_line(error)}",
                hint="Take both from the same model.",
            ) from error
        return model.to(device).requires_grad_(not frozen)

    def initialise(self, source: ModelSource, seed: int, device: torch.device, *, flash: bool) -> nn.Module:
        """Weights as the layers draw them, on the processor."""
        del flash
        torch.manual_seed(seed)
        return DiffiT(read_config(source)).to(device)

    def without_weights(self, source: ModelSource) -> nn.Module:
        """Built from the configuration alone."""
        return _on_meta(read_config(source))

    def adapter_form(self, model: nn.Module, settings: Settings) -> AdapterForm:
        """On the blocks' linear layers; a rank for each resolution, where they are given."""
        ranks = [int(rank) for rank in settings.lora.stage_ranks]
        stages = len(_bare(model).config.widths)
        if ranks and len(ranks) != stages:
            raise SettingsError(
                f"LORA_STAGE_RANKS has {len(ranks)} ranks, and the network works at {stages} resolutions.",
                hint=f"Give {stages}, the finest resolution first.",
            )
        patterns = {rf"(encoder|decoder)\.{stage}\..*": rank for stage, rank in enumerate(ranks)}
        return AdapterForm(task_type=None, targets=LORA_TARGETS, ranks=patterns)

    def objective(
        self,
        model: nn.Module,
        tokenizer: Any,
        settings: Settings,
        device: torch.device,
        *,
        flash: bool,
        warn: Callable[[str], None],
    ) -> DenoisingObjective:
        """The EDM loss."""
        del model, device, flash, warn
        return DenoisingObjective(tokenizer, flip=settings.diffusion.flip)

    def cost(self, model: Any, settings: Settings, data: Sequences) -> Cost:
        """Counted on one image of the device ``meta``; the backward pass takes twice the forward, less what frozen weights save."""
        config = _bare(model).config
        side = config.image_size
        activations: dict[int, int] = {}
        weights = {_memory(tensor) for tensor in [*model.parameters(), *model.buffers()]}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if _memory(tensor) not in weights:  # a layer keeps its weight as well, or a view of it
                activations[_memory(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.device("meta"), FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
            labels = torch.zeros(1, dtype=torch.int64) if config.classes else None
            model(torch.zeros(1, config.channels, side, side), torch.zeros(1), labels)
        passes = 3 if settings.training.all_weights else 2
        batch = min(settings.training.batch_size, len(data))
        return Cost(float(sum(activations.values()) * batch), float(passes * counter.get_total_flops()))

    def save(self, model: nn.Module, tokenizer: Any, directory: Path) -> None:
        """Two files."""
        import safetensors.torch

        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.descriptions(model, tokenizer).items():
            (directory / name).write_bytes(content)
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in self.tensors(model).items()}
        safetensors.torch.save_file(tensors, directory / file_sets.WEIGHTS, metadata={"format": "pt"})

    def tensors(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """As ``state_dict`` names them; none is shared."""
        return dict(model.state_dict())

    def descriptions(self, model: nn.Module, tokenizer: Any) -> dict[str, bytes]:
        """The configuration."""
        del tokenizer
        return {file_sets.MODEL_CONFIG: (json.dumps(_bare(model).config.to_json(), indent=2) + "\n").encode()}


def read_config(source: ModelSource) -> DiffiTConfig:
    """The configuration of a model. ``ModelError`` says what is wrong with it, and of a checkpoint or copy of ours ``CheckpointError``."""
    try:
        config = _config_in(source.config or source.path / file_sets.MODEL_CONFIG)
    except ModelError as error:
        if source.is_copy:
            raise CheckpointError(error.message, hint="Go on from another checkpoint of the run with --checkpoint.") from error
        raise
    return config if source.classes is None else replace(config, classes=source.classes)


def _config_in(path: Path) -> DiffiTConfig:
    try:
        # Resolved: in the Hub's cache every file is a link.
        content = json.loads(read_regular_file(path.resolve(), limit=MAX_BYTES))
        return DiffiTConfig.from_json(content)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.", hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} describes no DiffiT network: {first_line(error)}.", hint=_HINT) from error


def _from_scratch(settings: Settings) -> ModelSource:
    """The configuration, which is a file or the name of a size, and the seed of the weights."""
    name_or_path = str(settings.model.config)
    config = named_size(name_or_path) or Path(name_or_path).expanduser()
    if not config.is_file():
        raise ModelError(f"MODEL_CONFIG = {name_or_path}: no such file, and no size of DiffiT.", hint=_HINT)
    classes = settings.diffusion.conditional_classes or None
    source = ModelSource(
        str(settings.model.id),
        config.resolve().parent,
        None,
        config=config.resolve(),
        seed=settings.training.seed,
        classes=classes,
    )
    read_config(source)
    return source


def _weights(path: Path, files: Sequence[Path], config: DiffiTConfig) -> dict[str, torch.Tensor]:
    """The tensors of safetensors files, after a look at how many numbers they are. ``ModelError`` where ``config`` describes others."""
    try:
        numbers = sum(math.prod(entry.shape) for entry in stored_entries(files).values())
        if numbers == config.parameters:
            return {name: tensor for file in files for name, tensor in state.read_tensors(file.resolve()).items()}
    except CheckpointError as error:
        raise ModelError(error.message, hint=_SAFETENSORS) from error
    raise ModelError(
        f"{path}: its weights are {numbers:,} numbers, its {file_sets.MODEL_CONFIG} describes {config.parameters:,}.",
        hint="Take both from the same model.",
    )


def stored_entries(files: Sequence[Path]) -> dict[str, TensorEntry]:
    """The tensors in safetensors files by name. ``ModelError`` for a file that is none, or not whole."""
    try:
        # Resolved: in the Hub's cache every file is a link.
        return {name: entry for file in files for name, entry in read_header(file.resolve()).items()}
    except CheckpointError as error:
        raise ModelError(error.message, hint=_SAFETENSORS) from error


def _on_meta(config: DiffiTConfig) -> DiffiT:
    with torch.device("meta"):
        return DiffiT(config)


def _memory(tensor: torch.Tensor) -> int:
    """What tells one piece of memory from another, on the device ``meta`` too, where nothing has an address."""
    return int(tensor.untyped_storage()._cdata)


def _bare(model: nn.Module) -> DiffiT:
    """The network without an adapter's wrapping."""
    bare: DiffiT = bare_model(model)
    return bare
