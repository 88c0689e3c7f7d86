"""Attention that stays inside each document of a packed row, without a mask tensor.

Documents lie one after another in a single row (``input_ids`` of shape ``(1, tokens)``); the model's forward is given
``doc_lengths``, a tuple of their lengths, which transformers hands through to the attention function. Each document
then attends causally to itself alone: cost is the sum of the squared lengths instead of the square of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

IMPLEMENTATION = "pitstop_packed"


class PackingUnsupported(RuntimeError):
    """The model's attention cannot be kept inside documents by this implementation."""


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    doc_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document.

    ``query`` is ``(1, heads, tokens, head_dim)``; ``key`` and ``value`` are ``(1, kv_heads, tokens, head_dim)``.
    Returns ``(1, tokens, heads, head_dim)`` and no weights.
    Raises ``PackingUnsupported`` where the model does not pass ``doc_lengths`` on, or wants logit soft-capping,
    attention sinks or a position bias, which scaled_dot_product_attention cannot do.
    """
    if doc_lengths is None:
        raise PackingUnsupported("the model does not hand attention arguments through to its layers")
    for extra in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(extra) is not None:
            raise PackingUnsupported(f"its attention uses {extra}")
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    start = 0
    for length in doc_lengths:
        part = slice(start, start + length)
        windowed = sliding_window is not None and length > sliding_window
        outputs.append(
            F.scaled_dot_product_attention(
                query[:, :, part],
                key[:, :, part],
                value[:, :, part],
                attn_mask=_window_mask(length, sliding_window, query.device) if windowed else None,
                dropout_p=dropout,
                is_causal=not windowed,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
        start += length
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Causal mask of ``(length, length)`` in which a token sees itself and the ``window - 1`` before it."""
    assert window is not None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)[None, :]
    return (distance >= 0) & (distance < window)


def register() -> None:
    """Make the implementation known to transformers under ``IMPLEMENTATION``.

    It is deliberately not registered with the mask interface: transformers then builds no mask at all.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, packed_attention)


@torch.no_grad()
def keeps_documents_apart(model: nn.Module, device: torch.device) -> bool:
    """Try it: does a document's output stay the same when another one stands before it in the row?

    One short forward pass answers for any architecture (state-space layers, absolute positions, remote attention
    code), where a list of model names would have to be kept up.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    tokens = torch.arange(1, 9, device=device) % vocabulary
    positions = torch.arange(4, device=device)
    was_training = model.training
    model.eval()
    try:
        alone = _probe(model, tokens[4:], positions, (4,))
        packed = _probe(model, tokens, torch.cat([positions, positions]), (4, 4))[4:]
    except (PackingUnsupported, TypeError):
        return False
    finally:
        model.train(was_training)
    return bool(torch.allclose(alone, packed, rtol=5e-2, atol=5e-2 * float(alone.abs().max())))


def _probe(model: nn.Module, tokens: torch.Tensor, positions: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    output = model(input_ids=tokens[None], position_ids=positions[None], use_cache=False, doc_lengths=lengths)
    return output.logits[0].float()
