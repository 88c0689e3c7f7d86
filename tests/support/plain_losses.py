"""The losses that every fast path is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pitstop.trainers.data.example import Example


def plain_losses(path: Path, examples: list[Example]) -> tuple[list[float], list[bool]]:
    """Losses and hits from transformers' own forward with labels, one document and one label at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    losses, hits = [], []
    for example in examples:
        ids = torch.tensor(example.input_ids.astype(np.int64))[None]
        for position in np.flatnonzero(example.supervised):
            labels = torch.full_like(ids, -100)
            labels[0, position] = ids[0, position]
            with torch.no_grad():
                output = model(input_ids=ids, labels=labels)
            losses.append(float(output.loss))
            hits.append(int(output.logits[0, position - 1].argmax()) == int(ids[0, position]))
    return losses, hits
