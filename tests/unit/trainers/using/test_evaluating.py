"""Which data a checkpoint is evaluated on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pitstop.configs.errors import SettingsError
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import in_memory
from pitstop.trainers.models.limits import ModelLimits
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.reporter import Display, Reporter
from pitstop.trainers.using import evaluating
from support.fake_training import settings_with


def test_records_that_the_model_has_no_positions_for_are_refused_with_what_evaluate_can_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = [Example(np.full(33, 5, dtype=np.int32), np.ones(33, dtype=bool))]
    data = Dataset(examples, max_length=64, packing=True, counts=Counts.of(in_memory(examples)))
    monkeypatch.setattr(evaluating, "read_split", lambda *arguments, **more: data)
    limits = ModelLimits(ModelSource("model", Path("model"), None), None, rows=320, tokens=320, positions=32, learnt=True)
    chosen = SimpleNamespace(settings=settings_with(**{"data.max_length": 64}))
    opened: Any = SimpleNamespace(chosen=chosen, task=None, packing=True, base=SimpleNamespace(path=Path("model")), limits=limits)
    with pytest.raises(SettingsError, match="MAX_LENGTH = 64 is more than the 32 positions") as refused:
        evaluating.read_evaluation(opened, evaluating.EvaluationRequest(), Reporter(Display()))
    assert "--dataset" in str(refused.value.hint) and "--max-length" not in str(refused.value.hint)
