"""The README.md of a pushed run: what was trained on what, how it went, and how to load and resume it.

A pure function of plain values. Everything in them that a user chose (names, data sets, metrics) is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pitstop.checkpointing.card.facts import CardFacts, makes_images, text_at
from pitstop.checkpointing.card.markdown import escaped, quoted, table
from pitstop.checkpointing.card.usage import loading, resuming
from pitstop.checkpointing.disk.dotted import at
from pitstop.checkpointing.runs.inventory import BASE_DIRECTORY, CURVE, RUN_DIRECTORY
from pitstop.configs.leaves import leaves
from pitstop.configs.secrets import mask
from pitstop.configs.shown import human_size

MOST_ROWS = 50
"""Of more checkpoints than this the newest are shown, and the best."""

MOST_METRICS = 6

# What everyone asks of a fine-tune, in this order; any other setting is shown where it is not at its default.
_MAIN = (
    "lora.rank", "lora.alpha", "training.learning_rate", "training.epochs", "training.batch_size",
    "training.gradient_accumulation_steps", "data.max_length", "training.seed",
)  # fmt: skip
_OF_TEXT = "data.max_length"
# These say where the run lay, what it was called, or what stands above the table already.
_ELSEWHERE = re.compile(
    r"(?:hub|naming)\..*|model\.(?:id|revision|config|from_run|tokenizer)|data\.train|training\.(?:task|method)|quantization\.load_in_4bit"
    r"|training\.checkpoint\.(?:base_dir|run_number|resume_from_run|sync_save)"
)
_OF_ADAPTERS = ("lora.", "quantization.")
_METHODS = {"qlora": "LoRA on a 4-bit base (QLoRA)", "lora": "LoRA", "full": "all weights (base training)"}
_ABSENT = object()


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter. It ends with a line break and holds no token."""
    sections = [
        _front_matter(facts),
        [f"# {escaped(facts.name)}"],
        _introduction(facts),
        ["## Loss", "", f"![Loss over the optimizer steps]({CURVE})"] if facts.has_curve else [],
        _checkpoints(facts),
        _settings(facts),
        loading(facts),
        resuming(facts),
    ]
    return mask("\n\n".join("\n".join(lines) for lines in sections if lines) + "\n")


def _front_matter(facts: CardFacts) -> list[str]:
    base, data = facts.base_on_hub, facts.datasets_on_hub
    tags = [*([] if facts.whole else ["lora"]), *(["qlora"] if facts.method == "qlora" else []), "pitstop"]
    library = "pitstop" if facts.makes_images else "transformers" if facts.whole else "peft"
    base_model = [f"base_model: {quoted(base)}"] if base else []
    lines = ["---", f"library_name: {library}", *base_model, f"pipeline_tag: {facts.pipeline_tag}"]
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    if data:
        lines += ["datasets:", *(f"- {quoted(name)}" for name in data)]
    return [*lines, "---"]


def _introduction(facts: CardFacts) -> list[str]:
    about = {
        "Made after" if facts.from_scratch else "Started from" if facts.whole else "Base model": _base(facts),
        "Training data": _data(facts),
        "Method": _METHODS[facts.method],
        "Progress": _progress(facts),
        "Model at the top" if facts.whole else "Adapter at the top": _root(facts),
        "Made with": ", ".join(escaped(f"{name} {text}") for name, text in facts.metadata.environment.versions.items()),
    }
    return [_first(facts), "", *table(["", ""], [[title, text] for title, text in about.items() if text])]


def _first(facts: CardFacts) -> str:
    if facts.from_scratch:
        kind = "denoiser of images (DiffiT)" if facts.makes_images else "language model"
        return f"A {kind} trained from scratch with Pitstop."
    base = _linked(facts.base or "its base model", "", facts.base_on_hub is not None)
    return (
        f"{base}, all its weights trained with Pitstop." if facts.whole else f"A LoRA adapter for {base}, trained with Pitstop."
    )


def _linked(name: str, kind: str, on_hub: bool) -> str:
    return f"[{escaped(name)}](https://huggingface.co/{kind}{name})" if on_hub else escaped(name)


def _base(facts: CardFacts) -> str:
    if not facts.base:
        return ""
    is_plain = bool(re.fullmatch(r"[\w./-]+", facts.base_revision or "", re.ASCII))  # it may stand between backticks as it is
    at_commit = f" at `{facts.base_revision}`" if facts.base_on_hub and is_plain else ""
    copy = f", with the copy that was trained on in `{BASE_DIRECTORY}/`" if facts.base_pushed else ""
    return f"{_linked(facts.base, '', facts.base_on_hub is not None)}{at_commit}{copy}"


def _data(facts: CardFacts) -> str:
    names = ", ".join(_linked(name, "datasets/", name in facts.datasets_on_hub) for name in facts.datasets)
    data = facts.metadata.data
    counts = {"images": data.used} if facts.makes_images else {"records": data.used, "tokens": data.tokens}
    words = ", ".join(f"{count:,} {noun}" for noun, count in counts.items() if count is not None)
    return f"{names}: {words}" if names and words else names


def _progress(facts: CardFacts) -> str:
    reached, total = facts.metadata.progress.step, facts.metadata.progress.total_steps
    newest = facts.checkpoints[facts.newest].step if facts.newest else None
    step = reached if facts.finished and reached is not None else newest
    if step is None:
        return ""
    of = f" of {total:,}" if total is not None else ""
    return f"training {'has ended' if facts.finished else 'goes on'}, step {step:,}{of}"


def _root(facts: CardFacts) -> str:
    """Whose adapter ``PeftModel.from_pretrained(base, repo)`` gives."""
    if facts.root is None:
        return ""
    kinds = [kind for kind, name in (("best", facts.best), ("newest", facts.newest)) if name == facts.root]
    which = f", the {' and '.join(kinds)} one{'' if facts.finished else ' so far'}" if kinds else ""
    return f"of {escaped(facts.root)}{which}"


def _checkpoints(facts: CardFacts) -> list[str]:
    if not facts.checkpoints:
        return []
    entries = sorted(facts.checkpoints.values(), key=lambda entry: entry.step)
    listed = [*(entry for entry in entries[:-MOST_ROWS] if entry.directory == facts.best), *entries[-MOST_ROWS:]]
    monitored = text_at(facts.settings, "training.checkpoint.monitor")
    names = {name for entry in listed for name in entry.metrics}  # the monitored metric, other losses, then the rest by name
    metrics = sorted(names, key=lambda name: (name != monitored, "loss" not in name, name))[:MOST_METRICS]
    titles = ["Checkpoint", "Step", "Epoch", *map(escaped, metrics), "Size", ""]
    rows = []
    for entry in listed:
        numbers = ["" if (value := entry.metrics.get(name)) is None else f"{value:.4g}" for name in metrics]
        mark = "**best**" if entry.directory == facts.best else ""
        rows.append([entry.directory, f"{entry.step:,}", f"{entry.epoch:.4g}", *numbers, human_size(entry.size), mark])
    extent = f" These are the newest of {len(entries):,}." if len(entries) > len(listed) else ""
    model = "the whole model" if facts.whole else "an adapter"
    note = f"Each is a directory here that holds {model} and all that training needs to go on from it.{extent}"
    return ["## Checkpoints", "", note, "", *table(titles, rows, right=range(1, len(titles) - 1))]


def _settings(facts: CardFacts) -> list[str]:
    rows = setting_rows(facts.settings, whole=facts.whole)
    if not rows:
        return []
    note = f"The main ones, and those that are not at their defaults; all are in `{RUN_DIRECTORY}/config.json`."
    return ["## Settings", "", note, "", *table(["Setting", "Value"], rows)]


def setting_rows(settings: Mapping[str, Any], *, whole: bool = False) -> list[list[str]]:
    """Path and value of the main settings and of those not at their defaults, for a table; of adapters none where ``whole``."""
    card_settings = [pair for pair in _card_settings(settings) if not (whole and pair[0].startswith(_OF_ADAPTERS))]
    return [[f"`{path}`", escaped(_shown_value(value))] for path, value in card_settings]


def _card_settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    card_leaves = {leaf.path: leaf for leaf in leaves() if not leaf.secret and not _ELSEWHERE.fullmatch(leaf.path)}
    main = [path for path in _MAIN if path != _OF_TEXT or not makes_images(settings)]
    for path in [*main, *(path for path in card_leaves if path not in _MAIN)]:
        value = at(settings, path, _ABSENT)
        if value is not _ABSENT and (path in _MAIN or value != card_leaves[path].default):
            yield path, value


def _shown_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
