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
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document.

    ``arguments`` are ``doc_lengths``, ``sliding_window`` and whatever else a model hands to its attention. ``query`` is ``(1, heads, tokens, head_dim)``; ``key`` and ``value`` are ``(1, kv_heads, tokens, head_dim)``.
    Returns ``(1, tokens, heads, head_dim)`` and no weights.
    Raises ``PackingUnsupported`` where the model does not pass ``doc_lengths`` on, or wants logit soft-capping,
    attention sinks or a position bias, which scaled_dot_product_attention cannot do.
    """
    doc_lengths: Sequence[int] | None = arguments.get("doc_lengths")
    sliding_window: int | None = arguments.get("sliding_window")
    if doc_lengths is None:
        raise PackingUnsupported("the model does not hand attention arguments through to its layers")
    for extra in ("softcap", "s_aux", "position_bias"):
        if arguments.get(extra) is not None:
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


def keeps_documents_apart(model: nn.Module, device: torch.device) -> bool:
    """Try it: does a document behave the same when another one stands before it in the row?

    One short forward and backward pass answers for any architecture (state-space layers, absolute positions, remote
    attention code), where a list of model names would have to be kept up. Two copies of a document share a row: nothing of
    the second may depend on the first, so its gradient there is exactly zero, which no rounding can blur; and both must
    come out alike, or position ids are not heeded.
    """
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        return False  # chunks are a matter of the mask alone, and no mask is built
    was_training = model.training
    model.eval()
    try:
        return _probe(model, device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, AttributeError, ValueError, LookupError):
        return False  # the model's code wants a mask, or does not know these arguments
    finally:
        model.train(was_training)


def _probe(model: nn.Module, device: torch.device) -> bool:
    embeddings = model.get_input_embeddings()
    embedded: list[torch.Tensor] = []

    def follow(module: nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    document = torch.arange(1, 5, device=device) % embeddings.num_embeddings
    positions = torch.arange(4, device=device)
    handle = embeddings.register_forward_hook(follow)
    try:
        with torch.enable_grad():
            output = model(
                input_ids=document.repeat(2)[None], position_ids=positions.repeat(2)[None], use_cache=False, doc_lengths=(4, 4)
            )
            first, second = output.logits[0].float().split(4)
            (gradient,) = torch.autograd.grad(second.square().sum(), embedded)
    finally:
        handle.remove()
    apart = bool((gradient[:, :4] == 0).all()) and bool((gradient[:, 4:] != 0).any())
    tolerance = 1e-4 if output.logits.dtype == torch.float32 else 2e-2
    return apart and bool(torch.allclose(first, second, rtol=tolerance, atol=tolerance * float(first.detach().abs().max())))
