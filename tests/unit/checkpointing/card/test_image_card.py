"""The README of a pushed run that makes images."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from pitstop.checkpointing.card.facts import CardFacts
from pitstop.checkpointing.card.model_card import model_card
from pitstop.checkpointing.runs.inventory import RemoteCheckpoint
from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.configs.load import load_settings, settings_to_dict

LOADED = "from pitstop.trainers.tasks.diffusion.loading import load_sampler"


def settings(**flags: Any) -> dict[str, Any]:
    given = {path.replace("__", "."): value for path, value in flags.items()}
    return settings_to_dict(
        load_settings(flags={"training.task": "diffusion", "data.train": ["CIFAR10"], **given}, environ={}).settings
    )


WHOLE = settings(model__config="diffit-cpu")
LORA = settings(model__id="a-base", data__classes=["cat", "dog"], data__label="Pets")


def facts(settings: dict[str, Any], **changes: Any) -> CardFacts:
    entry = RemoteCheckpoint(
        "checkpoint-200", 200, 2.0, "2026-01-01T12:00:00+00:00", {"val_loss": 0.25, "fid": 31.4}, 5_000_000, "0" * 64
    )
    usual: dict[str, Any] = {
        "repo": "user/a-run",
        "name": "a-run",
        "checkpoints": {"checkpoint-200": entry},
        "settings": settings,
        "metadata": {"data": {"used": 50_000, "classes": {"cat": 50_000}}},
        "root": "checkpoint-200",
        "best": "checkpoint-200",
    }
    arguments = {**usual, **changes}
    return CardFacts(**{**arguments, "metadata": Metadata(arguments["metadata"])})


def front_matter(card: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return content


def code(card: str) -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)
    compile(found, "card", "exec")
    return str(found)


def made(card: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run the code of the card: what the repository is, what is loaded, how many images are made."""
    calls: list[Any] = []

    class Sampler:
        def made(self, count: int, *, seed: int) -> str:
            calls.append(("made", count, seed))
            return "images"

    def load_sampler(directory: str, adapter: str | None = None) -> Sampler:
        calls.append(("load", directory, adapter))
        return Sampler()

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo: f"/cache/{repo}")
    monkeypatch.setattr("pitstop.trainers.tasks.diffusion.loading.load_sampler", load_sampler)
    variables: dict[str, Any] = {}
    exec(code(card), variables)
    assert variables["images"] == "images"
    return calls


@pytest.mark.parametrize(("given", "tags"), [(WHOLE, ["pitstop"]), (LORA, ["lora", "pitstop"])])
def test_front_matter_says_what_it_makes_and_with_what(given: dict[str, Any], tags: list[str]) -> None:
    matter = front_matter(model_card(facts(given)))
    assert matter == {"library_name": "pitstop", "pipeline_tag": "unconditional-image-generation", "tags": tags}


def test_a_base_training_is_called_a_denoiser_and_images_are_counted() -> None:
    card = model_card(facts(WHOLE))
    assert "A denoiser of images (DiffiT) trained from scratch with Pitstop." in card
    assert re.search(r"\| Made after +\| diffit-cpu", card) and "language model" not in card
    assert "CIFAR10: 50,000 images" in card and "records" not in card and "tokens" not in card


def test_an_adapter_names_its_base_and_its_classes() -> None:
    card = model_card(facts(LORA))
    assert "A LoRA adapter for a-base, trained with Pitstop." in card
    assert "cat, dog" in card and "Pets" in card
    assert "fid" in card and "31.4" in card


def test_a_text_model_counts_records_and_tokens_as_before() -> None:
    text = settings_to_dict(load_settings(flags={"model.id": "m", "data.train": ["a.jsonl"]}, environ={}).settings)
    card = model_card(facts(text, metadata={"data": {"used": 12, "tokens": 3456}}))
    assert "a.jsonl: 12 records, 3,456 tokens" in card and "load_sampler" not in card
    assert front_matter(card)["pipeline_tag"] == "text-generation" and front_matter(card)["library_name"] == "peft"


def test_the_code_makes_images_with_the_model_at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    card = model_card(facts(WHOLE))
    assert LOADED in code(card) and "AutoModel" not in card and "PeftModel" not in card
    assert made(card, monkeypatch) == [("load", "/cache/user/a-run", None), ("made", 16, 0)]


def test_the_code_takes_a_base_that_was_pushed_with_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    card = model_card(facts(LORA, base_pushed=True))
    assert made(card, monkeypatch) == [("load", "/cache/user/a-run/base", "/cache/user/a-run"), ("made", 16, 0)]
    assert "is not part of this repository" not in card


def test_a_base_that_was_not_pushed_is_to_be_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    card = model_card(facts(LORA))
    assert "The base is not part of this repository" in card
    assert made(card, monkeypatch)[0] == ("load", "path/to/the/base", "/cache/user/a-run")


def test_a_hostile_name_of_a_repository_stays_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    repo = 'a"); import os; ("```'
    assert made(model_card(facts(WHOLE, repo=repo)), monkeypatch)[0] == ("load", f"/cache/{repo}", None)


def test_the_average_is_told_of() -> None:
    averaged = settings(model__config="diffit-cpu", training__ema_decay=0.99)
    assert "moving average of the weights" in model_card(facts(averaged))
    assert "moving average of the weights" not in model_card(facts(WHOLE))


def test_how_to_resume_is_said_of_images_too() -> None:
    assert "pitstop resume --from-hub user/a-run@checkpoint-200" in model_card(facts(WHOLE))
    assert "## Resume it" not in model_card(replace(facts(WHOLE), checkpoints={}))
