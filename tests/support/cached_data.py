"""A cache of tokenised data that remembers what it said, and a task whose examples have everything that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import Record
from pitstop.trainers.tasks.text import TextTask


class NamedTask(TextTask):
    """A task whose examples have references, groups and cut prompts."""

    name = "named"

    def examples(self, record: Record) -> list[Example]:
        ids = np.array([ord(letter) for letter in record.fields["text"]], dtype=np.int32)
        supervised = ids > ord("m")
        supervised[0], supervised[-1] = False, True
        return [Example(ids, supervised, record.fields["text"], record.fields["group"], bool(ids[0] % 2))] * 2

    def prompt_ids(self, prompt: str) -> list[int]:
        return []


class RecordingCache(DataCache):
    """A cache that remembers what it said."""

    def __init__(self, directory: Path, *, limit_bytes: int = 10**12, **tokenizer_key: Any) -> None:
        self.said: list[str] = []
        super().__init__(
            directory,
            tokenizer_key=tokenizer_key,
            limit_bytes=limit_bytes,
            tell=self.said.append,
            warn=lambda text: self.said.append(f"warning: {text}"),
        )

    def entries(self) -> list[Path]:
        return sorted(path for path in self.directory.iterdir() if path.is_dir() and path.name != "digests")


def load(path: Path, task: TextTask, cache: DataCache | None, **options: Any) -> Dataset:
    """Packed at 64 tokens unless ``options`` say otherwise."""
    return load_dataset([str(path)], task, ReadOptions(**{"max_length": 64, "packing": True, **options}), cache=cache)
