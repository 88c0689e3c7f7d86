"""Data that counts as large, so that all of it goes through the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pitstop.trainers.data.cache import key
from pitstop.trainers.tasks.sft import SftTask
from support.json_lines import write_rows


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key, "SMALL_BYTES", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Records with prompts and completions of many lengths."""
    rows = [{"prompt": f"case {n} " * (1 + n % 3), "completion": "- rest" * (1 + n % 3)} for n in range(60)]
    return write_rows(tmp_path / "a.jsonl", rows)


@pytest.fixture
def sft(tokenizer: Any) -> SftTask:
    """The sft task of the tiny model."""
    return SftTask(tokenizer)
