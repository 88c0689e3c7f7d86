"""A base model, with an adapter on it or bare, and what a task's scorer computes with: as training scores, outside of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.configs.schema import Settings

if TYPE_CHECKING:
    import torch

    from pitstop.trainers.loop.scoring import Scoring


def open_for_scoring(
    base: Path,
    settings: Settings,
    device: torch.device,
    *,
    stored: bool,
    adapter: Path | None,
    batch_size: int,
    max_new_tokens: int,
) -> Scoring:
    """Load the base in ``base`` (``stored``: a copy that a run keeps) in the form of ``settings``, and put ``adapter`` on it."""
    import torch

    from pitstop.trainers.loop.scoring import Scoring
    from pitstop.trainers.machine.device import choose_precision
    from pitstop.trainers.machine.libraries import quiet_libraries
    from pitstop.trainers.models.base import BaseRecipe, load_base
    from pitstop.trainers.models.tokenizer import load_tokenizer
    from pitstop.trainers.using.merging import expand

    precision = choose_precision(settings, device)
    tokenizer = load_tokenizer(base)
    model: Any = load_base(base, BaseRecipe.from_settings(settings, precision), device, stored=stored, flash=False)
    if precision.compute is torch.bfloat16:  # what 4-bit weights are expanded to, here once and for all
        expand(model)
    if adapter is not None:
        from peft import PeftModel

        with quiet_libraries():
            model = PeftModel.from_pretrained(model, adapter)
    return Scoring(
        model=model,
        tokenizer=tokenizer,
        device=device,
        autocast=lambda: torch.autocast(device.type, precision.compute, enabled=precision.mixed != "no"),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
