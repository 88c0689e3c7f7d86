"""A run keeps the rendering that it was started with: runs of earlier versions go on with the tokens that they were trained on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pitstop.configs import leaves
from pitstop.configs.data_settings import DataSettings
from support.forging import change_json, reseal
from support.forked import pitstop
from support.tiny_model import CHAT_TEMPLATE, make_tiny_model, write_data
from support.tokenizers_of_kinds import tokenizer_of
from support.training import arguments, checkpoints

pytestmark = pytest.mark.usefixtures("warm")

TEMPLATE = CHAT_TEMPLATE.replace("<|start|>", "<|im_start|>").replace("<|end|>", "<|im_end|>")


@pytest.fixture(scope="module")
def marking(tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """A model whose tokenizer marks the beginning of a text, so that the versions of the rendering differ."""
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden=16, tokenizer=tokenizer_of("metaspace always", TEMPLATE))


def _as_the_version_before() -> None:
    """Start runs as a version did that had one rendering."""
    for item in dataclasses.fields(DataSettings):
        if item.name == "rendering":
            item.default = 1
    for cached in (leaves.recorded_leaves, leaves.by_path):
        cached.cache_clear()


def _forget(settings: Any) -> None:
    del settings["data"]["rendering"]


def _data(run: Path, name: str) -> str:
    manifest = json.loads((run / "lora_weights" / name / "MANIFEST.json").read_text(encoding="utf-8"))
    return str(manifest["fingerprints"]["data"])


def test_a_run_of_an_earlier_version_goes_on_with_its_tokens_and_a_new_one_has_others(marking: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 12, 3)
    old, new = tmp_path / "runs/run_001", tmp_path / "runs/run_002"
    words = arguments(marking, data, tmp_path / "runs")
    assert (ended := pitstop(*words, prepare=_as_the_version_before)).code == 0, ended.output
    change_json(old / "config.json", _forget)
    for name in checkpoints(old):
        change_json(old / "lora_weights" / name / "trainer_state.json", lambda content: _forget(content["settings"]))
        reseal(old / "lora_weights" / name)
    last = checkpoints(old)[-1]
    trained_on = _data(old, last)

    assert (ended := pitstop(*words)).code == 0, ended.output
    assert json.loads((new / "config.json").read_text(encoding="utf-8"))["data"]["rendering"] == 2
    assert _data(new, last) != trained_on

    ended = pitstop("resume", f"1@{checkpoints(old)[0]}", "--base-dir", tmp_path / "runs")
    assert ended.code == 0, ended.output
    assert "changed" not in ended.output
    assert _data(old, last) == trained_on
    assert "rendering" not in json.loads((old / "config.json").read_text(encoding="utf-8"))["data"]
    ended = pitstop("resume", "1", "--base-dir", tmp_path / "runs", "--epochs", 3)
    assert ended.code == 0, ended.output
    assert _data(old, checkpoints(old)[-1]) == trained_on

    before = tmp_path / "before"
    (new / "lora_weights" / last).rename(before)
    ended = pitstop("resume", f"2@{checkpoints(new)[0]}", "--base-dir", tmp_path / "runs")
    assert ended.code == 0, ended.output
    assert _data(new, last) != trained_on
    assert (new / "lora_weights" / last / "adapter_model.safetensors").read_bytes() == (
        before / "adapter_model.safetensors"
    ).read_bytes()
