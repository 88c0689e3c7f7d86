"""The type that training computes in follows from the device, and never from a measurement: a resume must find the same."""

from __future__ import annotations

import pytest
import torch

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import ModelSettings, Settings
from pitstop.trainers.machine import device
from pitstop.trainers.machine.device import Precision, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("has_instructions", "precision"), [(True, Precision(torch.bfloat16, "bf16")), (False, Precision(torch.float32, "no"))]
)
def test_a_processor_without_bfloat16_instructions_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool, precision: Precision
) -> None:
    monkeypatch.setattr(device, "processor_computes_bfloat16", lambda: has_instructions)
    assert choose_precision(Settings(), CPU) == precision


def test_the_answer_is_the_same_each_time() -> None:
    answers = {device.processor_computes_bfloat16() for _ in range(5)}
    assert len(answers) == 1


def test_float16_is_refused_on_the_cpu() -> None:
    with pytest.raises(SettingsError, match="USE_FP16 needs a CUDA device"):
        choose_precision(Settings(model=ModelSettings(use_fp16=True)), CPU)


def test_mps_computes_in_float32() -> None:
    assert choose_precision(Settings(), torch.device("mps")) == Precision(torch.float32, "no")
