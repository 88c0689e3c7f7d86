"""Which parameters decay, and that every optimizer takes a step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from pitstop.configs.schema import TrainingSettings
from pitstop.trainers.loop.optim import build_optimizer, trainable

CPU = torch.device("cpu")
CLASSES = {
    "adamw": "AdamW",
    "adamw_8bit": "AdamW8bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
    "paged_adamw_32bit": "PagedAdamW32bit",
}


@pytest.fixture(autouse=True)
def _paged_means_little_on_a_cpu() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
        yield


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.Linear(128, 2))
    model[2].requires_grad_(False)
    return model


def _settings(**values: Any) -> TrainingSettings:
    return TrainingSettings(weight_decay=0.1, learning_rate=1e-2, **values)


def test_only_what_requires_a_gradient_is_trained_in_the_models_order() -> None:
    assert list(trainable(_model())) == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize("name", CLASSES)
def test_matrices_decay_and_vectors_do_not(name: str) -> None:
    parameters = trainable(_model())
    optimizer = build_optimizer(parameters, _settings(optimizer=name), CPU)
    assert type(optimizer).__name__ == CLASSES[name]
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {key: decays[id(p)] for key, p in parameters.items()} == {
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }
    assert {group["lr"] for group in optimizer.param_groups} == {1e-2}


@pytest.mark.parametrize("name", CLASSES)
def test_a_step_moves_each_weight_by_the_rate_and_the_decay(name: str) -> None:
    parameters = trainable(_model())
    before = {key: p.detach().clone() for key, p in parameters.items()}
    optimizer = build_optimizer(parameters, _settings(optimizer=name), CPU)
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for key, parameter in parameters.items():
        decayed = before[key] * (1 - 1e-2 * (0.1 if parameter.ndim == 2 else 0.0))
        torch.testing.assert_close(parameter.detach(), decayed - 1e-2, rtol=0, atol=3e-4)  # Adam's first step is the rate


def test_without_vectors_there_is_one_group() -> None:
    optimizer = build_optimizer({"a": nn.Parameter(torch.zeros(2, 2))}, _settings(), CPU)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]
