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
from support.training import arguments, checkpoints, metadata

pytestmark = pytest.mark.usefixtures("warm")

TEMPLATE = CHAT_TEMPLATE.replace("<|start|>", "<|im_start|>").replace("<|end|>", "<|im_end|>")


@pytest.fixture(scope="module")
def marking(tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """A model whose tokenizer marks the beginning of a text, so that the versions of the rendering differ."""
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden=16, tokenizer=tokenizer_of("metaspace always", TEMPLATE))


def _as_the_version_before() -> None:
    """Start runs as a version did that had one rendering, and nothing of what came with the second."""
    for item in dataclasses.fields(DataSettings):
        if item.metadata.get("before") is not None and item.default is not dataclasses.MISSING:
            item.default = item.metadata["before"]
    for cached in (leaves._declared, leaves.leaves, leaves.recorded_leaves, leaves.by_path):
        cached.cache_clear()


def _forget(settings: Any) -> None:
    for item in dataclasses.fields(DataSettings):
        if item.metadata.get("before") is not None:
            del settings["data"][item.name]


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


@pytest.fixture(scope="module")
def dating(tmp_path_factory: pytest.TempPathFactory, warm: None) -> Path:
    """A model whose chat template writes the date, as Llama 3.2's does."""
    template = "<|system|>Today: {{ strftime_now('%d %b %Y') }}<|im_end|>\n" + TEMPLATE
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden=16, tokenizer=tokenizer_of("byte-level", template))


def test_a_template_that_writes_the_date_is_told_the_day_of_the_start_for_ever(dating: Path, tmp_path: Path) -> None:
    data, base_dir = write_data(tmp_path / "data", 8, 2), ("--base-dir", tmp_path / "runs")
    words = arguments(dating, data, tmp_path / "runs", epochs=1)
    assert (ended := pitstop(*words)).code == 0, ended.output
    today = json.loads((tmp_path / "runs/run_001/config.json").read_text(encoding="utf-8"))["data"]["template_date"]
    assert f"The chat template writes the date and is told {today}" in ended.output
    assert metadata(tmp_path / "runs/run_001")["created_at"].startswith(today)

    assert (ended := pitstop(*words, "--template-date", "2026-01-05")).code == 0, ended.output
    run, last = tmp_path / "runs/run_002", "epoch_001"
    trained_on = _data(run, last)
    assert trained_on != _data(tmp_path / "runs/run_001", last)
    template = (run / "base_model/chat_template.jinja").read_text(encoding="utf-8")
    assert template == (dating / "chat_template.jinja").read_text(encoding="utf-8")

    ended = pitstop("resume", 2, *base_dir, "--epochs", 2, "--template-date", "2026-02-05")
    assert ended.code == 3, ended.output
    assert "What makes tokens of it has changed: data.template_date 2026-01-05 → 2026-02-05." in ended.output
    ended = pitstop("resume", 2, *base_dir, "--epochs", 2)
    assert ended.code == 0, ended.output
    assert "told 2026-01-05" in ended.output and _data(run, "epoch_002") == trained_on
    evaluated = pitstop("evaluate", "2", *base_dir, "--json")
    assert evaluated.json()["fingerprint"] == metadata(run)["data"]["eval"]["fingerprint"]


def test_a_run_without_a_day_on_record_is_told_the_day_on_which_it_was_started(dating: Path, tmp_path: Path) -> None:
    data, run = write_data(tmp_path / "data", 8, 2), tmp_path / "runs/run_001"
    words = arguments(dating, data, tmp_path / "runs", epochs=1, template_date="2026-01-05")
    assert (ended := pitstop(*words)).code == 0, ended.output

    def forget(settings: Any) -> None:
        del settings["data"]["template_date"]

    change_json(run / "config.json", forget)
    change_json(run / "lora_weights/epoch_001/trainer_state.json", lambda content: forget(content["settings"]))
    reseal(run / "lora_weights/epoch_001")
    change_json(run / "metadata.json", lambda content: content.update(created_at="2026-01-05T23:59:00+01:00"))
    ended = pitstop("resume", 1, "--base-dir", tmp_path / "runs", "--epochs", 2)
    assert ended.code == 0, ended.output
    assert _data(run, "epoch_002") == _data(run, "epoch_001")
