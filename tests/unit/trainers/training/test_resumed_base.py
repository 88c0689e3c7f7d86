"""The model that a resumed run goes on with: what is looked at, who decides, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.configs.errors import CheckpointError, ModelError
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.source import ModelSource, NoModel
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training import resumed_base
from pitstop.trainers.training.building import BaseOnDisk
from pitstop.trainers.training.request import ResumeRequest
from pitstop.trainers.training.resumed_base import find_source, place_base_again
from support.displays import Lines
from support.fake_training import settings_with

BFLOAT16, FLOAT32 = Precision(torch.bfloat16, "bf16"), Precision(torch.float32, "no")
REQUEST = ResumeRequest("runs", "1")


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return ModelSource("tiny", tmp_path, None)


def _chosen(source: ModelSource, problem: str = "run_001 has no saved base model", *, saved: bool = False) -> Any:
    """A checkpoint of a run that computed in bfloat16, without a copy of its base that could be used."""
    settings = settings_with(model__id="tiny", training__method="lora", training__checkpoint__save_base_model=saved)

    def own_base() -> BaseOnDisk:
        raise CheckpointError(problem)

    return SimpleNamespace(
        run=SimpleNamespace(label="run_001", metadata=lambda: Metadata({"base_model": {"saved": saved}})),
        settings=settings,
        changes={},
        known_base=None,
        base_digest=source.digest(BaseRecipe.from_settings(settings, BFLOAT16).as_dict()),
        own_base=own_base,
        whole_model=lambda: None,
    )


def _place(chosen: Any, source: ModelSource, display: Lines) -> BaseOnDisk:
    inputs: Any = SimpleNamespace(source=source, tokenizer=None)
    machine: Any = SimpleNamespace(precision=FLOAT32, device=torch.device("cpu"), is_main=True)
    return place_base_again(chosen, REQUEST, inputs, machine, Reporter(display))


def test_another_precision_of_the_device_is_no_changed_base(source: ModelSource) -> None:
    display = Lines()
    base = _place(_chosen(source), source, display)
    assert (base.path, base.stored, display.warnings) == (source.path, False, [])
    (source.path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"is not the one that run_001 was trained on \(its files have changed\)"):
        _place(_chosen(source), ModelSource("tiny", source.path, None), display)


def test_the_first_process_says_whether_the_runs_own_copy_is_whole(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumed_base, "from_first", lambda produce, device: b"runs/run_001/base_model")
    chosen = _chosen(source)
    assert _place(chosen, source, Lines()) == BaseOnDisk(Path("runs/run_001/base_model"), stored=True, digest=chosen.base_digest)


@pytest.mark.parametrize("saved", [True, False])
def test_where_no_model_is_found_it_is_said_what_is_wrong_with_the_runs_own(source: ModelSource, saved: bool) -> None:
    chosen = _chosen(source, "the base model runs/run_001/base_model is damaged: model.safetensors changed", saved=saved)
    with pytest.raises(NoModel, match="Cannot fetch tiny from the Hub") as refused:
        find_source(chosen, REQUEST, Reporter(Lines()))
    assert ("model.safetensors changed" in refused.value.message) == saved
