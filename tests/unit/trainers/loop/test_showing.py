"""The lines that a person reads while a run trains: each epoch, each save, the best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pitstop.trainers.loop.hooks import Show
from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.reporter import NoDisplay, Reporter
from pitstop.trainers.training.saver import _saved


class _Lines(NoDisplay):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def _boundary(**values: Any) -> Boundary:
    common: dict[str, Any] = {"epoch": 1.0, "finished": False, "learning_rate": 1e-3, "grad_norm": 1.0, "step_s": 0.5}
    return Boundary(**{**common, "step": 7, "epoch_ended": False, **values})


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (
            {"epoch_ended": True, "scored": {"train_loss": 2.0, "val_loss": 1.5}, "metrics": {"val_loss": 1.5}},
            ["epoch 1/3: train_loss 2.0000, val_loss 1.5000"],
        ),
        ({"epoch_ended": True, "scored": {"train_loss": 2.0}}, ["epoch 1/3: train_loss 2.0000"]),
        (
            {"scored": {"train_loss": 2.0, "val_loss": 1.5}, "metrics": {"val_loss": 1.5}},
            ["step 7: train_loss 2.0000, val_loss 1.5000"],
        ),
        (
            {"scored": {"ner_f1": 0.5, "ner_drug_f1": 0.25}, "metrics": {"ner_f1": 0.5, "ner_drug_f1": 0.25}},
            ["step 7: ner_f1 0.5000"],
        ),
        ({}, []),
    ],
)
def test_an_epoch_has_its_line(values: dict[str, Any], lines: list[str]) -> None:
    display = _Lines()
    Show(Reporter(display), 5, 3, Progress(), torch.device("cpu"), {"ner_drug_f1"}).at_boundary(_boundary(**values))
    assert display.lines == lines


@pytest.mark.parametrize(("improved", "mark"), [(True, "  ← best"), (False, "")])
def test_a_save_has_its_line_and_marks_the_best(improved: bool, mark: str) -> None:
    info: Any = SimpleNamespace(name="epoch_001", step=7, size=2048, path=Path("epoch_001"))
    assert _saved(info, _boundary(improved=improved)) == f"saved epoch_001 (step 7, 2.0 KiB){mark}"
