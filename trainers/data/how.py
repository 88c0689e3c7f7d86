"""How data is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """The longest example in tokens, whether bad rows are skipped, which split, the Hub's token."""

    max_length: int
    packing: bool
    skip_bad_rows: bool = False
    split: str = "train"
    token: str | None = None
