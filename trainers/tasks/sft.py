"""sft: instruction and chat tuning, with the loss on completions or assistant turns only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pitstop.configs.schema import Settings
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.tasks.text import TextTask


class SftTask(TextTask):
    """Turns records into examples with the tokenizer's chat template, where it has one."""

    name = "sft"

    def __init__(self, tokenizer: Any, settings: Settings | None = None) -> None:
        super().__init__(tokenizer, settings or Settings())

    def examples(self, record: Record) -> list[Example]:
        """One example a record. Raises ``BadRecord``."""
        return [self.chat.encode(record.fields)]

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        """``examples`` of each record, or the error it raised, with one call of the tokenizer for all."""
        del bad_rows
        encoded = self.chat.encode_all([record.fields for record in records])
        return [example if isinstance(example, BadRecord) else [example] for example in encoded]

    def relevant_settings(self) -> Mapping[str, Any]:
        """Those of the rendering: how a record is rendered follows from its fields, the tokenizer and these."""
        return self.rendered_by()
