"""A saved network for other people's Python: from a checkpoint of a base training, an export, or a repository on the Hub."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.state import state
from pitstop.configs.errors import ModelError
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.fit import Fit
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.tasks.diffusion.family import DiffiTFamily, read_config, stored_entries
from pitstop.trainers.tasks.diffusion.sampling import Sampler

_PLAIN = BaseRecipe(quantised=False, quant_type="nf4", double_quant=False, compute=torch.float32)


def load_sampler(directory: Path | str, adapter: Path | str | None = None, device: str = "cpu") -> Sampler:
    """What makes images with the network in ``directory``, in float32, with a LoRA ``adapter`` on it where one is given.

    >>> load_sampler("exported").made(16, seed=0).shape  # doctest: +SKIP
    (16, 3, 32, 32)

    Raises ``ModelError`` where there is no such network or adapter.
    """
    path, place = Path(directory), torch.device(device)
    model: Any = DiffiTFamily().load(path, _PLAIN, place, stored=False, flash=False, frozen=True)
    if adapter is not None:
        model = _with_adapter(model, Path(adapter))
    return Sampler(model, read_config(ModelSource(str(path), path, None)), place, contextlib.nullcontext)


def _with_adapter(model: Any, directory: Path) -> Any:
    from peft import PeftModel

    if not (directory / "adapter_config.json").is_file():
        raise ModelError(f"{directory} holds no adapter.", hint="Give the directory with adapter_config.json.")
    stored = {name: entry.shape for name, entry in stored_entries([directory / layout.ADAPTER_WEIGHTS]).items()}
    with quiet_libraries():
        adapted = PeftModel.from_pretrained(model, str(directory), local_files_only=True)
    # PEFT only warns of what the file lacks, and goes on with what it has drawn.
    expected = {name: tuple(tensor.shape) for name, tensor in state.adapter_tensors(adapted).items()}
    fit = Fit.of_shapes(stored, expected)
    if fit.missing or fit.mismatched or fit.unexpected:
        name = [*fit.missing, *(name for name, _, _ in fit.mismatched), *fit.unexpected][0]
        raise ModelError(
            f"The adapter in {directory} does not fit the network: {name}.", hint="Take the network that it was trained on."
        )
    return adapted
