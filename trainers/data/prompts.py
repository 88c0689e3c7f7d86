"""Prompts, and texts to ask about, from a file: one a line, or records with a field that holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.packed import form_suffix
from pitstop.trainers.data.files.places import USUAL, read_records
from pitstop.trainers.data.records import BadRecord, BadRows

Encode = Callable[[str], list[int]]
"""A prompt as the token ids that generation starts from; raises ``BadRecord``."""


def read_prompts(path: Path, field: str = "prompt") -> list[str]:
    """The prompts of ``path`` in order (or texts, by another ``field``); of a text file each line that is not blank is one.

    Files of records (JSONL, CSV, Parquet …, but ``.txt``) hold it under ``field``. Raises ``DataError`` for a file that is
    missing, unreadable or empty, and names the line of a record without one.
    """
    prompts = _records(path, field) if form_suffix(path.name) in USUAL.keys() - {".txt"} else _lines(path, field)
    if not prompts:
        raise DataError(f"{path}: there is no {field} in it.", hint=f"Give a {field} a line, or JSONL records with '{field}'.")
    return prompts


def _lines(path: Path, field: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path} line {line}: not UTF-8 text.", hint="Convert the file to UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.", hint=f"Check the path of the {field}s.") from error
    return lines_of(text)


def lines_of(text: str) -> list[str]:
    """The lines of ``text`` that are not blank; only a line feed ends one."""
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _records(path: Path, field: str) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file.", hint=f"Check the path of the {field}s.")
    prompts = []
    for record in read_records(str(path), BadRows(skip=False)):
        value = record.fields.get(field)
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{record.place}: '{field}' is missing or no text.", hint=f"Each record needs a text under '{field}'."
            )
        prompts.append(value)
    return prompts


def tokenised(prompts: Sequence[str], encode: Encode, *, longest: int | None, noun: str) -> list[list[int]]:
    """What ``encode`` makes of each prompt: a list of token ids that generation starts from.

    Raises ``DataError`` that names the prompt (``noun`` with its number) it cannot render, or that has more than
    ``longest`` tokens (None: any length).
    """
    return [_ids(prompt, encode, longest, f"{noun} {number}") for number, prompt in enumerate(prompts, start=1)]


def _ids(prompt: str, encode: Encode, longest: int | None, place: str) -> list[int]:
    try:
        ids = encode(prompt)
    except BadRecord as error:
        raise DataError(f"{place}: {error}.", hint="Give another prompt.") from error
    if not ids:
        raise DataError(f"{place}: it has no tokens.", hint="Give a prompt with at least one character.")
    if longest is not None and len(ids) > longest:
        raise DataError(
            f"{place}: it is {len(ids):,} tokens long, and there is room for {longest:,}.",
            hint="Shorten it, or ask for fewer new tokens.",
        )
    return ids


def room_for_prompt(model: Any, max_new_tokens: int) -> int | None:
    """How many tokens a prompt may have beside ``max_new_tokens`` new ones; None where the model names no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return max(0, limit - max_new_tokens) if isinstance(limit, int) and limit > 0 else None
