"""Records in the normal form, as the task sft reads them."""

from __future__ import annotations

from typing import Any

from pitstop.trainers.data.chat.conversation import Form
from pitstop.trainers.data.chat.template import ChatTemplate
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.shapes.control_tokens import ControlTokens
from pitstop.trainers.data.shapes.normal_form import NormalForm, ShapeOptions

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


class Shapes:
    """Reads records with options of the shapes, and keeps what there is to tell."""

    def __init__(self, template: str | None = TEMPLATE, **options: Any) -> None:
        self.rows = BadRows(skip=True)
        control = ControlTokens(["<|end|>", "<|user|>", "<s>"])
        self.reader = NormalForm(ShapeOptions(**options), template, control=control, end_token=lambda: "<|end|>")
        self.number = 0

    def read(self, fills_nulls: bool = False, **fields: Any) -> Form:
        """The normal form of the next record. Raises ``BadRecord``."""
        self.number += 1
        return self.reader.read(Record(fields, f"a line {self.number}", fills_nulls), self.rows)

    def reason(self, **fields: Any) -> str:
        """Why a record has none, with the hint."""
        try:
            form = self.read(**fields)
        except BadRecord as error:
            return f"{error} · {error.hint}" if error.hint else str(error)
        raise AssertionError(f"it is {form}")

    def told(self) -> list[str]:
        """All that there is to tell behind the last record."""
        self.reader.conclude(self.rows)
        return [str(notice) for notice in self.rows.notices]


def form_of(tokenizer: Any, fields: dict[str, Any]) -> Form:
    """The normal form of a record for ``tokenizer``. Raises ``BadRecord``."""
    return NormalForm(ShapeOptions(), ChatTemplate(tokenizer).text).read(Record(fields, "here"), BadRows(skip=True))
