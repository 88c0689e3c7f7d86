"""A task of the kind that these tests are about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pitstop.trainers.tasks.ner.task import NerTask
from support.json_lines import write_rows
from support.ner_records import ner_settings


@pytest.fixture
def make_task(tokenizer: Any, tmp_path: Path) -> Callable[..., NerTask]:
    """A task whose training data are the given records, in a file."""

    def make(*rows: dict[str, Any], **groups: Any) -> NerTask:
        return NerTask(tokenizer, ner_settings([write_rows(tmp_path / "train.jsonl", rows)], **groups))

    return make
