"""Whether the directory that a base was made from is still what it was, and was whole."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pitstop.configs.schema import Settings
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.causal_lm import CausalLM
from pitstop.trainers.models.fit import UnfitWeights
from pitstop.trainers.models.origin import check_origin, is_base
from pitstop.trainers.models.source import ModelSource
from support.fake_training import settings_with
from support.wrong_models import change_config, without

FLOAT32 = Precision(torch.float32, "no")


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that lacks a tensor."""
    directory = Path(shutil.copytree(tiny, tmp_path / "model"))
    without("model.norm.weight")(directory)
    return directory


def _settings(model: Path) -> Settings:
    return settings_with(**{"model.id": str(model), "training.method": "lora"})


def _digest(model: Path, settings: Settings, compute: torch.dtype = torch.bfloat16) -> str:
    recipe = replace(BaseRecipe.from_settings(settings, FLOAT32), compute=compute)
    return ModelSource(str(model), model, None).digest(recipe.as_dict())


def test_a_base_is_known_whatever_type_it_was_computed_in(model: Path) -> None:
    source, settings = ModelSource(str(model), model, None), _settings(model)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert is_base(source, settings, FLOAT32, _digest(model, settings, dtype))
    assert not is_base(source, settings, FLOAT32, "0" * 64)


def test_only_a_base_made_from_what_lacks_a_tensor_is_refused(model: Path) -> None:
    settings = _settings(model)
    digest = _digest(model, settings)
    with pytest.raises(UnfitWeights, match=r"random weights .*model\.norm\.weight"):
        check_origin(CausalLM(), settings, None, FLOAT32, digest)
    change_config(model, comment="changed since: what is wrong may be new")
    check_origin(CausalLM(), settings, None, FLOAT32, digest)
    (model / "config.json").unlink()
    check_origin(CausalLM(), settings, None, FLOAT32, digest)
    shutil.rmtree(model)
    check_origin(CausalLM(), settings, None, FLOAT32, digest)
