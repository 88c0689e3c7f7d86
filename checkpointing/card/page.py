"""The page of a run's repository: its model card, and the picture of the loss in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pitstop.checkpointing.card import curve, model_card
from pitstop.checkpointing.card.facts import CardFacts
from pitstop.checkpointing.runs.inventory import CARD, CURVE, Inventory
from pitstop.checkpointing.runs.portable_run import PortableRun
from pitstop.checkpointing.runs.retention import best_entry
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.datasets import without_weight


@dataclass(frozen=True)
class PageUpdate:
    """What of the page of the repository a commit renews: the model card, and the picture of the loss (``draw``).

    ``has_curve``: there is a picture already. Drawing takes a second of a processor that the training may want.
    """

    card: bool = True
    draw: bool = True
    has_curve: bool = False


def page_files(
    run: RunDirectory, documents: PortableRun, inventory: Inventory, repo: str, update: PageUpdate
) -> Mapping[str, bytes]:
    """What ``update`` asks for of ``run`` with these ``documents``, by path in ``repo``, which holds what ``inventory`` lists."""
    picture = curve.loss_curve(documents.rows, run.name) if update.draw else None
    files = {CURVE: picture} if picture is not None else {}
    if not update.card:
        return files
    best = best_entry(run, list(inventory.checkpoints.values()))
    facts = CardFacts(
        repo=repo,
        name=run.name,
        checkpoints=inventory.checkpoints,
        settings=documents.config,
        metadata=documents.metadata,
        root=inventory.root,
        best=best.directory if best else None,
        finished=inventory.finished,
        base_pushed=inventory.base is not None,
        has_curve=update.has_curve or picture is not None,
        local=_local_names(run),
    )
    return {**files, CARD: model_card.model_card(facts).encode()}


def _local_names(run: RunDirectory) -> list[str]:
    """Relative paths of this machine among the settings, which may read like ids on the Hub (``data/train``)."""
    config = run.config()
    data = config.get("data") or {}
    names = [(config.get("model") or {}).get("id"), *(data.get("train") or []), *(data.get("eval") or [])]
    paths = [path for name in names if isinstance(name, str) for path in {name, without_weight(name)}]
    return [path for path in paths if Path(path).exists()]
