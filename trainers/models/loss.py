"""Cross-entropy at the supervised positions only, and the forward pass that computes no other logits."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pitstop.trainers.data.batch import Batch, flat_batch, padded_batch
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.models.objective import Losses


@dataclass(frozen=True)
class TokenObjective:
    """Cross-entropy of a causal language model; see ``objective.Objective``.

    ``flat``: the examples of a batch lie in one row without padding (with ``flash`` kept apart by FlashAttention 2), otherwise one
    a row, padded with ``pad_id``.
    """

    flat: bool
    flash: bool
    pad_id: int
    keep_positions: bool

    @property
    def packing(self) -> bool:
        """Only rows without padding can hold several records."""
        return self.flat

    def batch(self, data: Dataset, sequence_ids: np.ndarray, device: torch.device) -> Batch:
        """The examples of the given sequences as tensors."""
        examples = data.sequence_examples(sequence_ids)
        return flat_batch(examples, device, flash=self.flash) if self.flat else padded_batch(examples, device, self.pad_id)

    def losses(self, model: Any, batch: Batch) -> Losses:
        """Nats a supervised token."""
        return token_losses(model, batch, keep_positions=self.keep_positions)

    evaluated = losses

    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """Loss, perplexity, and token accuracy."""
        return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0)), "val_token_accuracy": accuracy}


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the model's forward can be told at which positions to compute logits."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def token_losses(model: nn.Module, batch: Batch, *, keep_positions: bool) -> Losses:
    """Run the model on a batch and score its supervised tokens: negative log-likelihoods in nats, and which are the likeliest.

    With ``keep_positions`` the vocabulary projection runs at the supervised positions alone (the batch must be one
    row): for a prompt of 300 tokens with 20 to learn, that is a fifteenth of its work and memory.
    """
    logits = supervised_logits(model, batch, keep_positions=keep_positions)
    nll = F.cross_entropy(logits, batch.targets, reduction="none")
    return Losses(nll, logits.detach().argmax(dim=-1) == batch.targets)


def supervised_logits(model: nn.Module, batch: Batch, *, keep_positions: bool) -> torch.Tensor:
    """The logits that predict the supervised tokens of a batch: float32 of shape ``(supervised, vocabulary)``."""
    rows = batch.inputs["input_ids"].shape[0]
    inputs: dict[str, Any] = dict(batch.inputs, use_cache=False)
    if keep_positions and rows == 1:
        return model(**inputs, logits_to_keep=batch.predictors).logits[0].float()
    return model(**inputs).logits.flatten(0, 1)[batch.predictors].float()
