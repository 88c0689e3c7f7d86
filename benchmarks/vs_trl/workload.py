"""The workload both sides train: 32 medical-NER prompts of abstract length, and the hyperparameters.

The texts are the shipped example records, six of them joined into one text, so that a prompt is as long as one about an
abstract of a medical article. ``--data DIR`` takes longer records of ``DIR/train.jsonl`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pitstop.examples.medical_ner.render import ENTITY_TYPES, render

PROMPTS = 32
RECORDS_PER_TEXT = 6
WORDS = range(130, 260)
"""Length in words of the records taken from ``--data``: some 230 to 440 tokens with the prompt around them."""


@dataclass(frozen=True)
class Hyperparameters:
    """What both sides are given; the schedule is linear without warm-up, the optimizer AdamW, the loss on completions."""

    batch_size: int = 4
    accumulation: int = 1
    epochs: int = 2
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_length: int = 1024
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str = "all-linear"
    seed: int = 42


def join(records: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return one record that says what ``records`` say, each entity once, in order of first mention."""
    entities = {kind: list(dict.fromkeys(item for r in records for item in r["entities"][kind])) for kind in ENTITY_TYPES}
    return {"id": name, "text": " ".join(r["text"] for r in records), "entities": entities}


def example_texts(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the shipped records joined ``RECORDS_PER_TEXT`` at a time."""
    starts = range(0, len(records) - RECORDS_PER_TEXT + 1, RECORDS_PER_TEXT)
    return [join(records[start : start + RECORDS_PER_TEXT], f"text-{start:03d}") for start in starts]


def pairs(data: Path | None = None) -> list[dict[str, str]]:
    """Return the prompt/completion pairs; raise ``ValueError`` where ``data`` has too few records of the wanted length."""
    if data is None:
        texts = example_texts(_records(files("pitstop.examples.medical_ner") / "records_train.jsonl"))
    else:
        texts = [record for record in _records(data / "train.jsonl") if len(record["text"].split()) in WORDS]
    needed = PROMPTS // len(ENTITY_TYPES)
    if len(texts) < needed:
        raise ValueError(f"{data}: {len(texts)} records of {WORDS.start} to {WORDS.stop - 1} words, {needed} are needed")
    return [pair for text in texts[:needed] for pair in render(text)]


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write ``rows`` as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _records(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
