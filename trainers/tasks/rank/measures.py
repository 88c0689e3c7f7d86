"""Recall, MRR and NDCG of one relevant item among ranked candidates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

CUTOFFS = (1, 5, 10, 20)


def rank_of(scores: Sequence[float], target: int) -> int:
    """The target's rank, 1 for the highest score. Equal scores count against it, and so does what is not a number."""
    mine = scores[target]
    return 1 + sum(1 for index, score in enumerate(scores) if index != target and not score < mine)


def measures(rank: int | None) -> dict[str, float]:
    """Recall@k = [r ≤ k], MRR@k = [r ≤ k]/r and NDCG@k = [r ≤ k]/log2(r + 1) of one rank r; ``None`` is a miss."""
    values: dict[str, float] = {}
    for k in CUTOFFS:
        hit = rank is not None and rank <= k
        values[f"recall@{k}"] = 1.0 if hit else 0.0
        values[f"mrr@{k}"] = 1.0 / rank if hit and rank else 0.0
        values[f"ndcg@{k}"] = 1.0 / math.log2(rank + 1) if hit and rank else 0.0
    return values


def mean_measures(ranks: Iterable[int | None]) -> dict[str, float]:
    """Means over users, exact sums, so that their order does not matter; zero of no users."""
    rows = [measures(rank) for rank in ranks]
    return {name: math.fsum(row[name] for row in rows) / max(1, len(rows)) for name in measures(None)}


def report(subset: Mapping[str, float], share: float) -> dict[str, float]:
    """What is reported: overall (subset × retrieved share), on the retrieved subset, and the share."""
    overall = {name: value * share for name, value in subset.items()}
    return {**overall, **{f"retrieved_{name}": value for name, value in subset.items()}, "retrieved_share": share}


NAMES = tuple(report(measures(None), 0.0))
"""Every reported metric; of each, more is better."""
