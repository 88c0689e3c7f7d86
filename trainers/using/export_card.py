"""The README.md of an exported adapter or merged model, and the facts that an export keeps of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pitstop.checkpointing.card.facts import CardFacts
from pitstop.checkpointing.card.markdown import escaped, quoted, table
from pitstop.checkpointing.card.model_card import setting_rows
from pitstop.checkpointing.card.usage import BASE_PLACEHOLDER
from pitstop.checkpointing.disk.manifest import own_version
from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.checkpointing.store.portable_paths import portable_settings, portable_value
from pitstop.configs.load import settings_to_dict
from pitstop.configs.secrets import mask
from pitstop.trainers.training.chosen import ChosenCheckpoint

Facts = Mapping[str, Any]
"""What ``facts_of`` gives."""


def facts_of(chosen: ChosenCheckpoint) -> Facts:
    """What an export says of where it comes from: JSON-able, without secrets and without this machine's directories."""
    info = chosen.info
    return {
        "run": chosen.run.label,
        "name": chosen.run.name,
        "checkpoint": info.name,
        "step": info.step,
        "epoch": info.epoch,
        "metrics": dict(info.metrics),
        "saved_at": info.saved_at.isoformat(),
        "base_model": {
            "id": portable_value(chosen.settings.model.id),
            "revision": chosen.known_base.revision if chosen.known_base else None,
            "digest": info.manifest.fingerprints.get("base"),
        },
        "settings": portable_settings(settings_to_dict(chosen.settings)),
        "pitstop_version": own_version(),
    }


def export_card(facts: Facts, base_id: str | None, *, merged: bool) -> str:
    """The card as Markdown with YAML front matter. ``base_id`` is the base's id on the Hub, None where it is not known."""
    revision = facts["base_model"]["revision"]
    metadata = Metadata({"base_model": {"revision": revision}})
    card = CardFacts(repo="", name=facts["name"], settings=facts["settings"], metadata=metadata)
    kind = f"model (base and adapter in one, {'float32' if card.makes_images else 'bfloat16'})" if merged else "LoRA adapter"
    metrics = [[escaped(name), f"{value:.6g}"] for name, value in facts["metrics"].items() if value is not None]
    sections = [
        _front_matter(card, base_id, merged=merged),
        [f"# {escaped(facts['name'])}"],
        [
            f"A {kind} for {escaped(base_id or card.base)}, trained with Pitstop: {escaped(facts['checkpoint'])}, step {facts['step']:,}."
        ],
        ["## Metrics", "", *table(["Metric", "Value"], metrics, right=[1])] if metrics else [],
        ["## Settings", "", *table(["Setting", "Value"], setting_rows(facts["settings"]))],
        _making_images(base_id, merged=merged) if card.makes_images else _loading(base_id, revision, merged=merged),
    ]
    return mask("\n\n".join("\n".join(lines) for lines in sections if lines) + "\n")


def _front_matter(card: CardFacts, base_id: str | None, *, merged: bool) -> list[str]:
    lines = ["---", f"library_name: {'pitstop' if card.makes_images else 'transformers' if merged else 'peft'}"]
    lines += [f"base_model: {quoted(base_id)}"] if base_id else []
    lines += [f"pipeline_tag: {card.pipeline_tag}", "tags:", "- lora", "- pitstop"]
    if card.datasets_on_hub:
        lines += ["datasets:", *(f"- {quoted(name)}" for name in card.datasets_on_hub)]
    return [*lines, "---"]


def _making_images(base_id: str | None, *, merged: bool) -> list[str]:
    source = '"."' if merged else f'{quoted(base_id or BASE_PLACEHOLDER)}, adapter="."'
    return [
        "## Make images",
        "",
        "```python",
        "from pitstop.trainers.tasks.diffusion.loading import load_sampler",
        "",
        f"images = load_sampler({source}).made(16, seed=0)  # uint8, (16, channels, height, width); . is this directory",
        "```",
    ]


def _loading(base_id: str | None, revision: str | None, *, merged: bool) -> list[str]:
    if merged:
        code = ['path = "."  # this directory', 'model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")']
    else:
        arguments = quoted(base_id or BASE_PLACEHOLDER) + (f", revision={quoted(revision)}" if base_id and revision else "")
        code = [
            'path = "."  # this directory',
            f'base = AutoModelForCausalLM.from_pretrained({arguments}, dtype="auto")',
            "model = PeftModel.from_pretrained(base, path)",
        ]
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    imports = imports if merged else ["from peft import PeftModel", *imports]
    return ["## Load it", "", "```python", *imports, "", *code, "tokenizer = AutoTokenizer.from_pretrained(path)", "```"]
