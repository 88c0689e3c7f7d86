"""Prompts from a file: one a line of text, or records with a field ``prompt``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pitstop.configs.errors import DataError
from pitstop.trainers.data.records import SUFFIXES, BadRows, read_records
from pitstop.trainers.tasks.base import BadRecord
from pitstop.trainers.tasks.text import TextTask


def read_prompts(path: Path) -> list[str]:
    """The prompts of ``path`` in order; of a text file each line that is not blank is one.

    Files that end in .jsonl, .json, .csv or .parquet hold records with ``prompt``. Raises ``DataError`` for a file that is
    missing, unreadable or empty, and names the line of a record without a prompt.
    """
    prompts = _records(path) if path.suffix in SUFFIXES else _lines(path)
    if not prompts:
        raise DataError(f"{path}: there is no prompt in it.", hint="Give a prompt a line, or JSONL records with 'prompt'.")
    return prompts


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}).", hint="Convert the file to UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.", hint="Check the path of the prompts.") from error
    return lines_of(text)


def lines_of(text: str) -> list[str]:
    """The lines of ``text`` that are not blank; only a line feed ends one."""
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _records(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file.", hint="Check the path of the prompts.")
    prompts = []
    for record in read_records(str(path), BadRows(skip=False)):
        prompt = record.fields.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise DataError(f"{record.where}: 'prompt' is missing or no text.", hint="Each record needs a text under 'prompt'.")
        prompts.append(prompt)
    return prompts


def tokenised(prompts: Sequence[str], task: TextTask, *, longest: int | None, what: str) -> list[list[int]]:
    """The token ids that generation starts from, one list a prompt.

    Raises ``DataError`` that names the prompt (``what`` with its number) the task cannot render, or that has more than
    ``longest`` tokens (None: any length).
    """
    return [_ids(prompt, task, longest, f"{what} {number}") for number, prompt in enumerate(prompts, start=1)]


def _ids(prompt: str, task: TextTask, longest: int | None, where: str) -> list[int]:
    try:
        ids = task.prompt_ids(prompt)
    except BadRecord as error:
        raise DataError(f"{where}: {error}.", hint="Give another prompt.") from error
    if not ids:
        raise DataError(f"{where}: it has no tokens.", hint="Give a prompt with at least one character.")
    if longest is not None and len(ids) > longest:
        raise DataError(
            f"{where}: it is {len(ids):,} tokens long, and there is room for {longest:,}.",
            hint="Shorten it, or ask for fewer new tokens.",
        )
    return ids


def room_for_prompt(model: Any, max_new_tokens: int) -> int | None:
    """How many tokens a prompt may have beside ``max_new_tokens`` new ones; None where the model names no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return max(0, limit - max_new_tokens) if isinstance(limit, int) and limit > 0 else None
