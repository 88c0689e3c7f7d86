"""Fields of a record by name or by path, and the question that a template makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pitstop.configs.record_fields import FIELD_STEP, split_template
from pitstop.trainers.data.records import BadRecord

Fields = Mapping[str, Any]


def is_absent(value: Any) -> bool:
    """Whether a field with this value counts as absent: null, or an empty text."""
    return value is None or value == ""


class FieldPath:
    """``name``, ``a.b`` or ``a[0]``. A field whose name is the whole text comes before what the text says as a path."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = [int(match[2]) if match[2] else match[1] for match in FIELD_STEP.finditer(text)]

    def name_in(self, fields: Fields) -> str:
        """The field of the record that it leads into."""
        return self.text if self.text in fields else str(self._steps[0])

    def leads_into(self, fields: Fields) -> bool:
        """Whether there is such a field, whatever is in it."""
        return self.name_in(fields) in fields

    def value_in(self, fields: Fields) -> Any:
        """The value; None where there is none."""
        if self.text in fields:
            return fields[self.text]
        value: Any = fields
        for step in self._steps:
            if isinstance(value, Mapping) and isinstance(step, str):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
                value = value[step]
            else:
                return None
        return value


class ColumnMapping:
    """Fields by the names that they are mapped to. ``columns`` is NAME to FIELD; an empty FIELD leaves NAME out."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._dropped = [name for name, field in columns.items() if not field]
        self.paths = {name: FieldPath(field) for name, field in columns.items() if field}

    def apply(self, fields: Fields) -> tuple[dict[str, Any], list[str]]:
        """The fields of a record by their new names, and the names of those that a mapping took the place of."""
        sources = {path.name_in(fields) for path in self.paths.values()}
        mapped = {name: value for name, value in fields.items() if name not in sources and name not in self._dropped}
        overridden = []
        for name, path in self.paths.items():
            value = path.value_in(fields)
            if name in mapped and not is_absent(mapped.pop(name)):
                overridden.append(name)
            if value is not None:
                mapped[name] = value
        return mapped, overridden

    def missing_in(self, fields: Fields) -> list[str]:
        """The mapped fields that a record does not have."""
        return [path.text for path in self.paths.values() if path.value_in(fields) is None]


class PromptTemplate:
    """A question made of ``{field}`` and ``{field?}``, which may be absent; ``{{`` and ``}}`` are braces."""

    def __init__(self, text: str) -> None:
        self._parts = [
            (literal, FieldPath(field.removesuffix("?")) if field else None, field.endswith("?"))
            for literal, field in split_template(text)
        ]

    @property
    def paths(self) -> Iterable[FieldPath]:
        """The fields in it, in their order."""
        return {path.text: path for _, path, _ in self._parts if path}.values()

    def names_in(self, fields: Fields) -> Iterable[str]:
        """The fields of a record that it uses."""
        return (path.name_in(fields) for _, path, _ in self._parts if path)

    def question(self, fields: Fields) -> str:
        """The question. Raises ``BadRecord`` where a field is absent that must not be."""
        texts = []
        for literal, path, is_optional in self._parts:
            texts.append(literal)
            if path is None:
                continue
            value = path.value_in(fields)
            if is_absent(value) and not is_optional:
                raise BadRecord(
                    f"it has no field '{path.text}', which the prompt template names",
                    hint=f"Write {{{path.text}?}} where it may be absent.",
                )
            if not is_absent(value):
                texts.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
        return "".join(texts)
