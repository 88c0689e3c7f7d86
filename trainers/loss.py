"""Cross-entropy at the supervised positions only, and the forward pass that computes no other logits."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pitstop.trainers.data.batch import Batch


@dataclass(frozen=True)
class TokenLosses:
    """Sums over the supervised tokens of one micro-batch.

    ``nll``: negative log-likelihood in nats, float32, shape ``(supervised,)``. ``correct``: whether the most likely
    token is the target, bool, same shape.
    """

    nll: torch.Tensor
    correct: torch.Tensor


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the model's forward can be told at which positions to compute logits."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def token_losses(model: nn.Module, batch: Batch, *, keep_positions: bool) -> TokenLosses:
    """Run the model on a batch and score its supervised tokens.

    With ``keep_positions`` the vocabulary projection runs at the supervised positions alone (the batch must be one
    row): for a prompt of 300 tokens with 20 to learn, that is a fifteenth of its work and memory.
    """
    logits = supervised_logits(model, batch, keep_positions=keep_positions)
    nll = F.cross_entropy(logits, batch.targets, reduction="none")
    return TokenLosses(nll, logits.detach().argmax(dim=-1) == batch.targets)


def supervised_logits(model: nn.Module, batch: Batch, *, keep_positions: bool) -> torch.Tensor:
    """The logits that predict the supervised tokens of a batch: float32 of shape ``(supervised, vocabulary)``."""
    rows = batch.inputs["input_ids"].shape[0]
    inputs: dict[str, Any] = dict(batch.inputs, use_cache=False)
    if keep_positions and rows == 1:
        return model(**inputs, logits_to_keep=batch.predictors).logits[0].float()
    return model(**inputs).logits.flatten(0, 1)[batch.predictors].float()
