"""The README of an export: what it is, and code that loads it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pitstop.configs.load import load_settings
from pitstop.trainers.training.chosen import ChosenCheckpoint
from pitstop.trainers.using.export_card import export_card, facts_of


def _plan(**flags: Any) -> ChosenCheckpoint:
    given = {path.replace("__", "."): value for path, value in flags.items()}
    settings = load_settings(flags={"model.id": "a-base", **given}, environ={}).settings
    info = SimpleNamespace(
        name="epoch_002",
        step=1200,
        epoch=2.0,
        metrics={"val_loss": 0.125, "fid": None},
        saved_at=datetime(2026, 1, 1, tzinfo=UTC),
        manifest=SimpleNamespace(fingerprints={"base": "0" * 64}),
    )
    run = SimpleNamespace(label="run_001", name="a-run")
    plan: Any = SimpleNamespace(run=run, info=info, settings=settings, known_base=None)
    return plan


IMAGES = {"training__task": "diffusion", "data__train": ["CIFAR100"], "data__classes": ["oak_tree"], "data__label": "Trees"}


def _card(*, merged: bool, base_id: str | None = None, **flags: Any) -> str:
    plan = _plan(**flags)
    return export_card(facts_of(plan), base_id, merged=merged)


def _code(card: str) -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    compile(found, "card", "exec")
    return str(found)


def _loaded(card: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str | None]:
    """What the code of the card loads."""
    given: list[Any] = []

    def load_sampler(directory: str, adapter: str | None = None) -> Any:
        given.append((directory, adapter))
        return SimpleNamespace(made=lambda count, seed: "images")

    monkeypatch.setattr("pitstop.trainers.tasks.diffusion.loading.load_sampler", load_sampler)
    variables: dict[str, Any] = {}
    exec(_code(card), variables)
    assert variables["images"] == "images"
    (found,) = given
    return found[0], found[1]


@pytest.mark.parametrize("merged", [True, False])
def test_front_matter_of_images(merged: bool) -> None:
    matter = yaml.safe_load(_card(merged=merged, **IMAGES).split("---\n")[1])
    assert matter == {
        "library_name": "pitstop",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["lora", "pitstop"],
    }
    known = yaml.safe_load(_card(merged=merged, base_id="owner/base", **IMAGES).split("---\n")[1])
    assert known["base_model"] == "owner/base"


def test_the_code_of_a_merged_model_loads_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    card = _card(merged=True, **IMAGES)
    assert _loaded(card, monkeypatch) == (".", None)
    assert "A model (base and adapter in one, float32) for a-base, trained with Pitstop: epoch\\_002, step 1,200." in card
    assert "transformers" not in card and "val" in card and "0.125" in card and "fid |" not in card


@pytest.mark.parametrize(("base_id", "base"), [(None, "path/to/the/base"), ('own"er/base', 'own"er/base')])
def test_the_code_of_an_adapter_puts_it_on_its_base(monkeypatch: pytest.MonkeyPatch, base_id: str | None, base: str) -> None:
    card = _card(merged=False, base_id=base_id, **IMAGES)
    assert _loaded(card, monkeypatch) == (base, ".") and "A LoRA adapter for " in card and "peft" not in card


def test_a_text_model_is_loaded_by_its_own_libraries_as_before() -> None:
    for merged, library, precision in ((True, "transformers", "bfloat16"), (False, "peft", "LoRA adapter")):
        card = _card(merged=merged, data__train=["a.jsonl"])
        matter = yaml.safe_load(card.split("---\n")[1])
        assert (matter["library_name"], matter["pipeline_tag"]) == (library, "text-generation")
        assert precision in card and "load_sampler" not in card and "AutoModelForCausalLM" in _code(card)
