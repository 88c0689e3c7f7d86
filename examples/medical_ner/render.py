"""Turn annotated records into the prompt/completion pairs that supervised fine-tuning reads.

``train.jsonl`` and ``held_out.jsonl`` beside this file are derived from ``records_train.jsonl`` and
``records_held_out.jsonl``. After editing the records, write the pairs again::

    python -m pitstop.examples.medical_ner.render
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pitstop.trainers.tasks.ner.wording import completion, prompt

ENTITY_TYPES = ("chemical", "disease")
PAIRS_FROM_RECORDS = {"train.jsonl": "records_train.jsonl", "held_out.jsonl": "records_held_out.jsonl"}


def render(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one prompt/completion pair for each entity type of ``{"id", "text", "entities": {type: [...]}}``."""
    return [
        {
            "id": f"{record['id']}-{entity_type}",
            "entity_type": entity_type,
            "prompt": prompt(record["text"], entity_type),
            "completion": completion(record["entities"][entity_type]),
        }
        for entity_type in ENTITY_TYPES
    ]


def render_lines(lines: Iterable[str]) -> str:
    """Return the JSONL text of the pairs derived from the records in ``lines``."""
    pairs = (pair for line in lines if line.strip() for pair in render(json.loads(line)))
    return "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)


def write_pairs(directory: Path) -> None:
    """Write both derived files of ``directory`` from its records."""
    for pairs_name, records_name in PAIRS_FROM_RECORDS.items():
        lines = (directory / records_name).read_text(encoding="utf-8").splitlines()
        (directory / pairs_name).write_text(render_lines(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_pairs(Path(__file__).parent)
