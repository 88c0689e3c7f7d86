"""ner: entity extraction. One question a record and entity type, answered by ``- item`` lines or ``- none``."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.configs.datasets import parse_sources
from pitstop.configs.errors import SettingsError
from pitstop.configs.notices import Notice
from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Dataset, Sequences
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord, BadRows, NoData, Record
from pitstop.trainers.data.row_json import parse_json
from pitstop.trainers.tasks.base import Direction
from pitstop.trainers.tasks.ner.annotated import ANNOTATED
from pitstop.trainers.tasks.ner.scores import NerScores, ParsedAnswer, parse_items, score_answers
from pitstop.trainers.tasks.ner.wording import (
    DEFAULT_PROMPT,
    NONE,
    UNTYPED,
    UnusableItem,
    completion,
    distinct,
    prompt,
    template_fields,
    type_name,
)
from pitstop.trainers.tasks.text import TextTask

if TYPE_CHECKING:  # it knows torch, which reading data does without
    from pitstop.trainers.loop.scoring import Scoring

ARTICLE_FIELDS = ("article", "pmid", "doc_id")
"""Fields that say which article a record is from, the first that is there."""

Row = tuple[str, str, str]
"""Entity type, question and answer."""

_NOT_ASKED = "{count} [pair is|pairs are] left out, since [its type is|their types are] not asked for"
_RATIOS = ("precision", "recall", "f1")
_SENTENCE_OF = re.compile(r"(?P<article>.+?)[-_:.](?:s|sent|sentence|par|paragraph|part|chunk)[-_:.]?\d+", re.IGNORECASE)
_NUMBER_OF = re.compile(r"(?P<article>(?:(?:PMID|PMC):?\d+|\d{5,}))[-_:.]\d+", re.IGNORECASE)


class NerTask(TextTask):
    """Asks for each entity type of each record, and scores generated answers as sets of entities.

    The types are those of the settings or, where these name none, all that the training data has; they are found in a first
    pass over it and then stay, so that evaluation asks for the same. What is learnt is the answer, as ``data.chat`` renders it.
    """

    name = "ner"
    headline = ("ner_precision", "ner_recall", "ner_f1")
    extra_formats = ANNOTATED

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        super().__init__(tokenizer, settings)
        self._types: tuple[str, ...] | None = None
        self._template = settings.ner.prompt or DEFAULT_PROMPT
        if nameless := [written for written in settings.ner.entity_types if not type_name(written)]:
            raise SettingsError(
                f"NER_ENTITY_TYPES: {nameless[0]!r} has no letter or digit.", hint="For example: chemical,disease"
            )
        fields = template_fields(self._template)
        if "text" not in fields or len(fields) < 2:
            raise SettingsError(
                "NER_PROMPT must hold {text} and one of {type} and {description}.",
                hint='For example: "Name each {type} in this text: {text}"',
            )

    # Records -----------------------------------------------------------------------------------------------------

    def records(self, spec: str, bad_rows: BadRows, *, split: str, token: str | None) -> Iterator[Record]:
        """Yield the records of one ``--dataset`` value: what ``read_records`` reads, PubTator and IOB files.

        Raises ``SettingsError`` where the settings name an entity type that the training data, if it is this, does not have.
        """
        if self.settings.ner.entity_types and spec in self._training_data():
            self._check_types()
        return self._read_records(spec, bad_rows, split=split, token=token)

    def entity_types(self) -> tuple[str, ...]:
        """The types that are asked for, in the order of the settings or else of the alphabet.

        Raises ``DataError`` where the training data is needed to know them and cannot be read.
        """
        if self._types is None:
            named = dict.fromkeys(type_name(written) for written in self.settings.ner.entity_types)
            self._types = tuple(named) or tuple(sorted(self._types_of_training_data()))
        return self._types

    def _check_types(self) -> None:
        known_types = self._types_of_training_data()
        for written in self.settings.ner.entity_types:
            if known_types and type_name(written) not in known_types:
                close = difflib.get_close_matches(type_name(written), sorted(known_types), n=1)
                raise SettingsError(
                    f"NER_ENTITY_TYPES: the training data has no entity type {written!r}.",
                    hint=f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(sorted(known_types))}.",
                )

    def _types_of_training_data(self) -> set[str]:
        """All types that occur there; what is malformed is reported when it is used."""
        split, token = self.settings.data.split, self.settings.hub.token_value
        types: set[str] = set()
        try:
            for spec in self._training_data():
                for record in self._read_records(spec, BadRows(skip=True), split=split, token=token):
                    with contextlib.suppress(BadRecord):
                        types |= _types_in(record.fields)
        except NoData as error:
            raise NoData(
                f"{error.message} The entity types to ask for are those of the training data.",
                hint=f"{error.hint or ''} Or name the types with --ner-entity-types.".strip(),
            ) from error
        return types

    def _training_data(self) -> list[str]:
        return [source.spec for source in parse_sources(self.settings.data.train)]

    def content(self, spec: str, *, split: str, token: str | None, digest: Callable[[Path], str]) -> str | None:
        """The bytes of the files, or what identifies a Hub data set."""
        return self._identified(spec, split=split, token=token, digest=digest)

    def relevant_settings(self) -> Mapping[str, Any]:
        """Those of the task, and the types that the training data has where none are named."""
        return {**super().relevant_settings(), "entity_types": self.entity_types()}

    # Examples ----------------------------------------------------------------------------------------------------

    def examples(self, record: Record) -> list[Example]:
        """One example for each entity type; a ready pair gives one, if its type is asked for. Raises ``BadRecord``."""
        fields = record.fields
        rows = [_pair(fields)] if _is_pair(fields) else self._render(fields)
        types, group = self.entity_types(), _group(record)
        return [self._example(kind, question, answer, group) for kind, question, answer in rows if kind in types]

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        """See ``TextTask``; pairs of types that are not asked for are told."""
        results = super().examples_of(records, bad_rows)
        for record, examples in zip(records, results, strict=True):
            if not isinstance(examples, BadRecord) and not examples and _is_pair(record.fields):
                bad_rows.notices.add(Notice(_NOT_ASKED, place=record.place))
        return results

    def _render(self, fields: Mapping[str, Any]) -> list[Row]:
        text, entities = _text(fields, "text"), _entities(fields)
        return [(kind, self.question(text, kind), completion(entities.get(kind, ()))) for kind in self.entity_types()]

    def _example(self, kind: str, question: str, answer: str, group: str) -> Example:
        example = self.chat.encode(self.chat.pair(question, answer))
        # What the answer is read back as, so that both sides of the comparison went through the same reader.
        reference = json.dumps({"type": kind, "items": parse_items(answer)}, ensure_ascii=False)
        return replace(example, reference=reference, group=group)

    def question(self, text: str, kind: str) -> str:
        """The prompt that asks for the entities of type ``kind`` in ``text``."""
        return prompt(text, kind, self._template)

    # Scores ------------------------------------------------------------------------------------------------------

    def answered(self, evaluation: Dataset) -> Sequence[Example]:
        """As many as the settings say."""
        return evaluation.examples[: self.settings.evaluation.score_examples]

    def metrics(self, evaluation: Sequences) -> Mapping[str, Direction]:
        """Precision, recall, F1 and exact match over all answers, and the first three for each entity type."""
        assert isinstance(evaluation, Dataset)
        limit = self.settings.evaluation.score_examples
        scored = evaluation.examples[: limit or None]
        kinds = dict.fromkeys(json.loads(example.reference)["type"] for example in scored)
        names = [f"ner_{ratio}" for ratio in _RATIOS] + ["ner_exact_match"]
        names += [f"ner_{kind}_{ratio}" for kind in kinds for ratio in _RATIOS]
        return dict.fromkeys(names, "max")

    def score(self, evaluation: Sequences, scoring: Scoring) -> dict[str, float]:
        """Generate greedily and compare sets of entities. Raises ``Interrupted``."""
        from pitstop.trainers.tasks.ner.greedy import greedy_answers

        assert isinstance(evaluation, Dataset)
        examples = evaluation.examples[: scoring.limit]
        answers = greedy_answers(examples, scoring)
        scoring.hear(answers)
        return scores_of(examples, answers).as_metrics()


def scores_of(examples: Sequence[Example], answers: Sequence[str]) -> NerScores:
    """The scores of generated ``answers``, one for each of ``examples``."""
    references = [json.loads(example.reference) for example in examples]
    return score_answers(
        ParsedAnswer(reference["type"], reference["items"], parse_items(answer))
        for reference, answer in zip(references, answers, strict=True)
    )


# What a record holds -----------------------------------------------------------------------------------------------


def _is_pair(fields: Mapping[str, Any]) -> bool:
    return {"prompt", "completion"} <= fields.keys()


def _types_in(fields: Mapping[str, Any]) -> set[str]:
    return {_pair_type(fields)} if _is_pair(fields) else set(_entities(fields))


def _pair(fields: Mapping[str, Any]) -> Row:
    question, answer = _text(fields, "prompt"), _text(fields, "completion")
    if not parse_items(answer) and answer.strip().casefold() != NONE:
        raise BadRecord(f"the completion has neither '- item' lines nor '{NONE}'")
    return _pair_type(fields), question, answer


def _pair_type(fields: Mapping[str, Any]) -> str:
    return _named(_text(fields, "entity_type")) if fields.get("entity_type") else UNTYPED


def _entities(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """The record's entities by type name. CSV has them as JSON text."""
    entities = fields.get("entities")
    if isinstance(entities, str):
        try:
            entities = parse_json(entities)
        except ValueError as error:
            raise BadRecord(f"'entities' is text, but {error}") from error
    if not isinstance(entities, dict):
        names = ", ".join(sorted(fields)) or "none"
        raise BadRecord(f"wanted 'text' and 'entities' ({{type: [names]}}), or prompt and completion; its fields: {names}")
    by_type: dict[str, list[str]] = {}
    for written, items in entities.items():
        by_type.setdefault(_named(written), []).extend(_items(written, items))
    try:
        return {kind: distinct(items) for kind, items in by_type.items()}
    except UnusableItem as error:
        raise BadRecord(str(error)) from error


def _items(written: str, items: Any) -> list[str]:
    if items is None:  # a table has every type in every row
        return []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise BadRecord(f"the entities of type {written!r} are not a list of texts")
    return items


def _named(written: str) -> str:
    name = type_name(written)
    if not name:
        raise BadRecord(f"the entity type {written!r} has no letter or digit")
    return name


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRecord(f"'{key}' is not text" if not isinstance(value, str) else f"'{key}' is empty")
    return value


def _group(record: Record) -> str:
    """The article that a record is from: a field that says so, else what its id says, else the record itself."""
    fields = record.fields
    for key in ARTICLE_FIELDS:
        if fields.get(key):
            return str(fields[key])
    identifier = str(fields.get("id") or record.place)
    if fields.get("entity_type"):
        identifier = identifier.removesuffix(f"-{fields['entity_type']}")
    for pattern in (_SENTENCE_OF, _NUMBER_OF):
        if match := pattern.fullmatch(identifier):
            return match["article"]
    return identifier
