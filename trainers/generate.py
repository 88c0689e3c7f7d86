"""Greedy generation in batches, from the same prompt tokens that training used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pitstop.trainers.models.base import quiet_libraries


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    end_ids: Sequence[int] = (),
) -> list[str]:
    """The most likely continuation of each prompt (token ids), as text without special tokens.

    Prompts of similar length go together, padded on the left; generation of a row ends at the tokenizer's end token or at one
    of ``end_ids``.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ends = sorted({tokenizer.eos_token_id, *end_ids} - {None})
    with _inference(model), quiet_libraries():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = _left_padded([prompts[i] for i in chosen], pad)
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=pad,
                eos_token_id=ends,
                temperature=None,
                top_p=None,
                top_k=None,
            )
            for index, row in zip(chosen, output[:, ids.shape[1] :], strict=True):
                texts[index] = tokenizer.decode(row, skip_special_tokens=True)
    return texts


def _left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 of shape ``(rows, longest)``."""
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


@contextlib.contextmanager
def _inference(model: Any) -> Iterator[None]:
    """Evaluation mode with an attention that knows padding and the cache; both come back afterwards."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    implementation, was_training = base.config._attn_implementation, model.training
    base.set_attn_implementation("sdpa" if getattr(base, "_supports_sdpa", False) else "eager")
    model.eval()
    try:
        yield
    finally:
        base.set_attn_implementation(implementation)
        model.train(was_training)
