"""A tiny model and its tokenizer, made once; one thread, since these tensors are smaller than the cost of sharing them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from support.tiny_model import make_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny Llama with a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tokenizer(tiny: Path) -> Any:
    """Its tokenizer, a fresh one for each test."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture
def load_tiny(tiny: Path) -> Callable[..., Any]:
    """Loads the tiny model in float32 as training does."""
    import torch

    from pitstop.trainers.models.base import BaseRecipe, load_base

    def load(path: Path = tiny, *, quantised: bool = False, compute: torch.dtype = torch.float32) -> Any:
        recipe = BaseRecipe(quantised=quantised, quant_type="nf4", double_quant=True, compute=compute)
        return load_base(path, recipe, torch.device("cpu"), stored=False, flash=False)

    return load


@pytest.fixture
def golden_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A copy of a recorded run, made of the model in ``model``; paths in it are relative to the current directory."""
    shutil.copytree(repository / "tests/golden/exact-1", tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    return RunDirectory(tmp_path / "home/runs/run_001")


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """Makes a data set of given examples, one a sequence unless packed."""

    def make(examples: Sequence[Example], *, max_length: int = 64, packing: bool = False) -> Dataset:
        return Dataset(
            examples,
            max_length=max_length,
            packing=packing,
            counts=Counts(
                records=len(examples),
                used=len(examples),
                too_long=0,
                bad=0,
                bad_reasons=(),
                tokens=sum(len(e) for e in examples),
                supervised_tokens=sum(int(e.supervised.sum()) for e in examples),
            ),
        )

    return make


@pytest.fixture
def make_examples() -> Callable[..., list[Example]]:
    """Makes random examples of given lengths, the first token never supervised and the last always."""

    def make(lengths: Sequence[int], *, seed: int = 0, vocabulary: int = 300) -> list[Example]:
        rng = np.random.default_rng(seed)
        examples = []
        for length in lengths:
            supervised = rng.random(length) < 0.5
            supervised[0], supervised[-1] = False, True
            examples.append(Example(rng.integers(3, vocabulary, length).astype(np.int32), supervised))
        return examples

    return make
