"""Learning rate as a pure function of the step, so that a resume needs no scheduler state."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, cos, pi

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + cos(pi * progress)),  # Loshchilov and Hutter 2017, one cycle to zero
}


def learning_rate(step: int, *, peak: float, total: int, warmup_ratio: float, shape: str) -> float:
    """The rate of the optimizer step with 0-based number ``step`` of ``total``.

    Warm-up rises linearly over ``ceil(total * warmup_ratio)`` steps and reaches ``peak`` with its last one, so no step
    is spent at rate zero; after it, ``shape`` runs from ``peak`` towards zero at step ``total``.
    """
    warmup = ceil(total * warmup_ratio - 1e-9)  # 70 * 0.1 is a little more than 7
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * SHAPES[shape]((step - warmup) / max(1, total - warmup))
