"""What a step of training costs, estimated from the model's shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Sequences

_KEPT_A_LAYER = (14, 8)  # 16-bit values kept for the backward pass, a token and layer: hidden widths, MLP widths
FLOPS_A_WEIGHT = 4.0  # a token: forward, and backward through frozen weights to what lies below
FLOPS_A_TRAINED_WEIGHT = 6.0  # and the gradient of the weight itself


@dataclass(frozen=True)
class Cost:
    """``kept_bytes``: what the largest micro-batch keeps for its backward pass; ``flops``: operations a unit, both passes."""

    kept_bytes: float
    flops: float


def frozen_linear(model: Any) -> Iterator[torch.Tensor]:
    """The frozen weights of linear layers, which are what is stored in 4 bits; the output layer aside."""
    return (weight for weight in _linear(model) if not weight.requires_grad)


def _linear(model: Any) -> Iterator[torch.Tensor]:
    head = model.get_output_embeddings()
    return (module.weight for module in model.modules() if isinstance(module, nn.Linear) and module is not head)


def of_causal_lm(model: Any, settings: Settings, data: Sequences) -> Cost:
    """Kept activations and logits of the longest sequences; every token is multiplied with every linear layer."""
    text = model.config.get_text_config()
    tokens = data.longest(settings.training.batch_size)
    supervised = tokens * data.counts.supervised_tokens / data.counts.tokens
    hidden, mlp = _KEPT_A_LAYER
    a_layer = 2 * tokens * (hidden * text.hidden_size + mlp * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size))
    layers = text.num_hidden_layers
    activations = (
        (2 * tokens * text.hidden_size * layers + a_layer) if settings.model.gradient_checkpointing else a_layer * layers
    )
    logits = supervised * text.vocab_size * (2 + 4 + 4 + 4)
    all_weights = settings.training.all_weights
    weights = sum(weight.numel() for weight in (_linear(model) if all_weights else frozen_linear(model)))
    return Cost(activations + logits, weights * (FLOPS_A_TRAINED_WEIGHT if all_weights else FLOPS_A_WEIGHT))
