"""What a finished training logged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def speed(logged: Sequence[dict[str, Any]], unit: str) -> float:
    """Return how many of ``unit`` (tokens, images) a second were trained on, the first step left out; one row is one step."""
    return float((logged[-1][unit] - logged[0][unit]) / sum(row["step_s"] for row in logged[1:]))
