"""A base training goes to the Hub as a whole model that anybody loads, and goes on from there on an empty machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from support.forked import kill_at_step, pitstop
from support.hub import Hub
from support.hub.machine import Machine
from support.training import arguments, assert_same_end, checkpoints

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]

SETTINGS: dict[str, Any] = {
    "method": "full",
    "epochs": None,
    "lora_rank": None,
    "lora_dropout": None,
    "learning_rate": 1e-3,
    "ema_decay": 0.5,
    "max_steps": 6,
    "eval_dataset": None,
    "save_strategy": "steps",
    "save_steps": 2,
    "keep_last_n": "none",
}
RUN = "base_training/run_001"


def test_a_whole_model_is_pushed_loaded_by_anybody_and_gone_on_with_elsewhere(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    one = Machine(tmp_path / "one", hub).furnish(tiny_model)
    undisturbed = tmp_path / "undisturbed"
    assert pitstop(*arguments(tiny_model, one.home, undisturbed, **SETTINGS)).code == 0
    ended = one.train(SETTINGS, prepare=kill_at_step(4, signal.SIGTERM))
    assert ended.code == 143, ended.output
    ((_, repo),) = hub.store.repositories
    assert {path for path in hub.tree(repo) if "/" not in path} - {".gitattributes", "README.md", "loss_curve.png"} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    one.vanish()

    other = Machine(tmp_path / "other", hub)
    other.home.mkdir()
    data = tmp_path / "one-is-gone" / "train.jsonl"
    ended = other.pitstop("resume", "--from-hub", repo, "--dataset", data)
    assert ended.code == 0, ended.output
    run = other.runs / RUN
    assert_same_end(undisturbed / RUN, run, ("model.safetensors", "ema.safetensors", "config.json", "optimizer.safetensors"))
    assert checkpoints(run) == ["checkpoint-4", "checkpoint-6"]

    best = (run / "checkpoints/best").resolve()
    assert hub.content(repo, "model.safetensors") == (best / "ema.safetensors").read_bytes(), (
        "what was evaluated is what is served"
    )
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert hub.content(repo, f"checkpoint-6/{name}") == (run / "checkpoints/checkpoint-6" / name).read_bytes()
    card = hub.content(repo, "README.md").decode()
    assert "library_name: transformers" in card and "moving average" in card and "lora" not in card.lower(), card
    assert 'AutoModelForCausalLM.from_pretrained(repo, subfolder="checkpoint-6")' in card

    def anybody() -> None:
        other.enter()
        from transformers import AutoModelForCausalLM, AutoTokenizer

        for where in ({}, {"subfolder": "checkpoint-6"}):
            model = AutoModelForCausalLM.from_pretrained(repo, **where)
            ids = AutoTokenizer.from_pretrained(repo, **where)("Case 1", return_tensors="pt").input_ids
            assert model(ids).logits.shape[-1] == model.config.vocab_size

    ended = pitstop("--version", prepare=anybody)
    assert ended.code == 0, ended.output
