"""The frozen base in 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pitstop.trainers.models.base import BaseRecipe, load_base, save_base
from support.tiny_model import make_tiny_model

RECIPE = BaseRecipe(quantised=True, quant_type="nf4", double_quant=True, compute=torch.bfloat16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


def _input_gradient(model: Any) -> torch.Tensor:
    """Gradient of a loss with respect to the input embeddings, through every 4-bit layer."""
    embeddings = model.get_input_embeddings()(torch.arange(4, 12)[None]).detach().requires_grad_(True)
    model(inputs_embeds=embeddings, doc_lengths=(8,)).logits.float().square().mean().backward()
    assert embeddings.grad is not None
    return embeddings.grad


def test_gradients_after_an_evaluation_are_those_before_it(directory: Path) -> None:
    model: Any = load_base(directory, RECIPE, CPU, stored=False, flash=False)
    before = _input_gradient(model.train())
    with torch.no_grad():
        model.eval()(input_ids=torch.arange(4, 12)[None], doc_lengths=(8,))
    after = _input_gradient(model.train())
    assert before.abs().max() > 0
    assert torch.equal(before, after)


def test_a_saved_base_comes_back_bit_for_bit(directory: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model: Any = load_base(directory, RECIPE, CPU, stored=False, flash=False)
    save_base(model, AutoTokenizer.from_pretrained(directory), tmp_path / "saved")
    again: Any = load_base(tmp_path / "saved", RECIPE, CPU, stored=True, flash=False)
    assert torch.equal(_input_gradient(model.train()), _input_gradient(again.train()))
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} <= {".safetensors", ".json", ".jinja"}
