"""Exports of a recorded run: what lies in them, what they call their base, and what is left where one fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import ModelError, SettingsError
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.chosen import ChosenCheckpoint, open_checkpoint
from pitstop.trainers.using.export_card import facts_of
from pitstop.trainers.using.exporting import ADAPTER, CKPT, MERGED, ExportRequest, as_json, base_on_hub, export
from support.displays import Lines


@pytest.fixture
def chosen(golden_run: RunDirectory) -> ChosenCheckpoint:
    """The best checkpoint of a run on a base that is a directory of this machine."""
    return open_checkpoint(golden_run, golden_run.store.resolve("best"))


def _files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_an_adapter_is_the_checkpoints_with_tokenizer_card_and_facts(chosen: ChosenCheckpoint, tmp_path: Path) -> None:
    display, target = Lines(), tmp_path / "adapter"
    result = export(chosen, ExportRequest(target, ADAPTER), Reporter(display))
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= _files(target)
    weights = "adapter_model.safetensors"
    assert (target / weights).read_bytes() == (chosen.info.path / weights).read_bytes()
    assert result["size_bytes"] == sum(path.stat().st_size for path in target.iterdir())
    assert (result["format"], result["step"], result["base_id"]) == (ADAPTER, 12, None)
    assert "The base was a directory of this machine" in display.warnings[0] and "--base-id" in display.warnings[0]
    assert "settings" not in as_json(result)


def test_a_base_id_that_is_given_stands_in_the_config_and_the_card(chosen: ChosenCheckpoint, tmp_path: Path) -> None:
    display, target = Lines(), tmp_path / "adapter"
    export(chosen, ExportRequest(target, ADAPTER, base_id="someone/base"), Reporter(display))
    assert json.loads((target / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/base"
    assert "someone/base" in (target / "README.md").read_text() and not display.warnings
    assert (base_on_hub(facts_of(chosen), "someone/base"), base_on_hub(facts_of(chosen), None)) == ("someone/base", None)


def test_a_merged_model_is_the_base_with_the_product_of_the_adapter_added(chosen: ChosenCheckpoint, tmp_path: Path) -> None:
    target = tmp_path / "merged"
    result = export(chosen, ExportRequest(target, MERGED), Reporter(Lines()))
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= _files(target)
    merged, base = load_file(target / "model.safetensors"), load_file("model/model.safetensors")
    assert merged.keys() == base.keys() and result["parameters"] >= sum(tensor.numel() for tensor in base.values())
    changed = {name for name in base if not torch.equal(base[name].float(), merged[name].float())}
    assert all("_proj" in name for name in changed) and changed, "what carries no adapter is the base's"


def test_a_ckpt_holds_nothing_but_tensors_numbers_and_texts(chosen: ChosenCheckpoint, tmp_path: Path) -> None:
    target = tmp_path / "run.ckpt"
    result = export(chosen, ExportRequest(target, CKPT), Reporter(Lines()))
    content = torch.load(target, weights_only=True)
    assert sorted(content) == result["keys"] and content["global_step"] == 12


def test_a_place_inside_the_run_is_refused(chosen: ChosenCheckpoint) -> None:
    with pytest.raises(SettingsError, match="lies in the run"):
        export(chosen, ExportRequest(chosen.run.path / "export", ADAPTER), Reporter(Lines()))
    assert not (chosen.run.path / "export").exists()


@pytest.mark.parametrize("form", [ADAPTER, MERGED])
def test_an_export_that_fails_leaves_nothing(chosen: ChosenCheckpoint, tmp_path: Path, form: str) -> None:
    for copy in (chosen.run.path / "base_model", chosen.run.base_dir / ".base_models" / chosen.base_digest, Path("model")):
        (copy / "model.safetensors").unlink(missing_ok=True)
    before = _files(tmp_path)
    with pytest.raises(ModelError):
        export(chosen, ExportRequest(tmp_path / "export", form), Reporter(Lines()))
    assert _files(tmp_path) == before
