"""What a family of models has to know: how a model is loaded, made anew, trained on a batch, and laid out in a checkpoint.

Everything else (adapters, optimizers, averages, snapshots, the commit, resuming, the Hub) deals with an ``nn.Module`` and with files
and tensors by name. A task whose models do not come from transformers adds a class with these methods and a line to ``FAMILIES`` of ``tasks/registry.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pitstop.configs.schema import Settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pitstop.trainers.data.dataset import Sequences
    from pitstop.trainers.models.adapter import AdapterForm
    from pitstop.trainers.models.base import BaseRecipe
    from pitstop.trainers.models.cost import Cost
    from pitstop.trainers.models.fit import Tell
    from pitstop.trainers.models.objective import Objective
    from pitstop.trainers.models.source import KnownBase, ModelSource


class Family(Protocol):
    """One kind of model. What reads raises ``ModelError`` for a model that is not there, or is none of this family."""

    def find(self, settings: Settings, recorded: KnownBase | None) -> ModelSource:
        """The files that training starts from: weights, or for a model from scratch what describes it."""

    def tokenizer(self, source: ModelSource) -> Any:
        """What turns records into numbers: a tokenizer, or what images have to be like."""

    def check(self, source: ModelSource, tell: Tell) -> nn.Module:
        """The model on the device ``meta``, once the headers of the files have shown that the weights are those of its architecture.

        ``tell`` hears of what is not used. Raises ``ModelError`` for what ``load`` would refuse.
        """

    def load(self, path: Path, recipe: BaseRecipe, device: torch.device, *, stored: bool, flash: bool, frozen: bool) -> nn.Module:
        """The model whose files lie in ``path``, which is a directory that Pitstop wrote (``stored``) or one of other people.

        ``frozen``: it is to be the base of an adapter; otherwise all its parameters are to be trained, in the recipe's type.
        """

    def initialise(self, source: ModelSource, seed: int, device: torch.device, *, flash: bool) -> nn.Module:
        """A model with random weights from ``seed`` as ``source.config`` describes it, all its parameters to be trained, float32.

        The same on every device: drawn on the CPU.
        """

    def without_weights(self, source: ModelSource) -> nn.Module:
        """The model on the device ``meta``, to count its parameters."""

    def adapter_form(self, model: nn.Module, settings: Settings) -> AdapterForm:
        """What an adapter on ``model``, which is bare, is like. ``SettingsError`` for ranks that do not fit it."""

    def objective(
        self,
        model: nn.Module,
        tokenizer: Any,
        settings: Settings,
        device: torch.device,
        *,
        flash: bool,
        warn: Callable[[str], None],
    ) -> Objective:
        """What is minimised with ``model``, which is bare. ``warn`` is told where not all can be done as the settings say."""

    def cost(self, model: Any, settings: Settings, data: Sequences) -> Cost:
        """An estimate for ``model`` on the device ``meta``, with its adapter where it gets one."""

    def save(self, model: nn.Module, tokenizer: Any, directory: Path) -> None:
        """Write a base for adapters as it is used, 4-bit if it is, so that ``load(…, stored=True)`` gives it back."""

    def tensors(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """The live tensors of a whole model by the names that the file has them under: each memory once, buffers included."""

    def descriptions(self, model: nn.Module, tokenizer: Any) -> dict[str, bytes]:
        """The files beside the weights that make a directory with both complete; names that ``file_sets`` allows."""
