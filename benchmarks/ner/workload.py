"""What is trained: SmolLM2-135M-Instruct with LoRA on the first records of BC5CDR that the time suffices for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.schema import NerSettings, Settings, TrainingSettings
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.models.tokenizer import load_tokenizer
from pitstop.trainers.tasks.ner.task import NerTask

TYPES = ["chemical", "disease"]
PROMPT = 'List each {type} in the text, one per line after a dash, or "- none".\n\nText: {text}'
"""Shorter than the task's own question: a tenth of a training's tokens are saved."""

MARGIN = 0.95
"""Share of the time that is planned for: the speed is measured on a few steps."""


@dataclass(frozen=True)
class Job:
    """One training. ``learning_rate`` falls to zero without a warm-up; one packed sequence is one step."""

    model: Path
    method: str
    max_length: int = 1024
    rank: int = 16
    learning_rate: float = 1e-3
    seed: int = 42

    def arguments(self, data: Path, base_dir: Path, *more: str) -> list[str]:
        """The arguments of ``pitstop`` that train this on ``data``."""
        words = {
            "--task": "ner", "--method": self.method, "--model-id": self.model, "--dataset": data, "--base-dir": base_dir,
            "--ner-entity-types": ",".join(TYPES), "--ner-prompt": PROMPT, "--max-length": self.max_length,
            "--epochs": 1, "--batch-size": 1, "--gradient-accumulation-steps": 1, "--seed": self.seed,
            "--learning-rate": self.learning_rate, "--lr-scheduler": "linear", "--warmup-ratio": 0,
            "--lora-rank": self.rank, "--lora-alpha": 2 * self.rank, "--lora-dropout": 0, "--logging-steps": 1,
        }  # fmt: skip
        return ["train", "--json", *(str(word) for pair in words.items() for word in pair), *more]

    def settings(self, data: Path) -> Settings:
        """The same settings for what is computed here: token counts and scores."""
        ner = NerSettings(entity_types=TYPES, prompt=PROMPT)
        training = TrainingSettings(task="ner", method=self.method)
        return Settings(data=DataSettings(train=[str(data)]), ner=ner, training=training)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file of records. Raises ``ValueError`` where there are none."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no records")
    return lines


def tokens_of(job: Job, data: Path) -> list[int]:
    """Return the tokens of each record of ``data`` in both its questions together, prompts and answers.

    A question of more than ``max_length`` tokens, which training leaves out, does not count.
    """
    task = NerTask(load_tokenizer(job.model), job.settings(data))
    records = read_records(str(data), BadRows(skip=False))
    return [sum(len(e) for e in task.examples(record) if len(e) <= job.max_length) for record in records]


def fitting(tokens: Sequence[int], budget: float) -> int:
    """Return how many of the first records have at most ``budget`` tokens together."""
    total = 0
    for number, count in enumerate(tokens):
        total += count
        if total > budget:
            return number
    return len(tokens)
