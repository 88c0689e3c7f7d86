"""What is compared: pairs of settings under which both sides do the same training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One comparison: TRL's arguments beyond the hyperparameters, and Pitstop's flags beyond them."""

    summary: str
    trl: dict[str, Any] = field(default_factory=dict)
    pitstop: tuple[str, ...] = ()


CASES = {
    "bf16": Case(
        "bf16 weights, activations kept, one prompt a row on both sides",
        trl={"dtype": "bfloat16", "gradient_checkpointing": False},
        pitstop=("--no-packing",),
    ),
    "recompute": Case(
        "bf16 weights, activations recomputed (gradient checkpointing), one prompt a row on both sides",
        trl={"dtype": "bfloat16"},
        pitstop=("--no-packing", "--gradient-checkpointing"),
    ),
    "trl-defaults": Case(
        "TRL as it comes (float32 weights under bf16 autocast, gradient checkpointing); Pitstop with bf16 weights, "
        "activations kept, one prompt a row",
        pitstop=("--no-packing",),
    ),
}
DEFAULT_CASES = ("bf16", "trl-defaults")
