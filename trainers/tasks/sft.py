"""sft: instruction and chat tuning, with the loss on completions or assistant turns only."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

from pitstop.checkpointing.store.portable_paths import portable
from pitstop.configs.datasets import DataSource
from pitstop.configs.errors import DataError, ModelError, PitstopError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.chat.conversation import Conversation, Document, Form, Preference
from pitstop.trainers.data.chat.renderer import Encoded
from pitstop.trainers.data.chat.rendering import UNROLLED
from pitstop.trainers.data.chat.template import ChatTemplate
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.lengths import LengthFitter, LengthRule
from pitstop.trainers.data.reading import ReadOptions
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.shapes.control_tokens import ControlTokens
from pitstop.trainers.data.shapes.normal_form import NO_SUCH_FIELD, NormalForm, NoTemplate, ShapeOptions
from pitstop.trainers.tasks.text import TextTask

Reader = TypeVar("Reader", bound=NormalForm)
AnyForm = TypeVar("AnyForm", bound=Form | Preference)


class FormTask(TextTask, Generic[AnyForm]):
    """Records of any shape, read in their normal form and rendered with the tokenizer's chat template, where it has one."""

    name = "sft"

    def __init__(self, tokenizer: Any, settings: Settings | None = None) -> None:
        super().__init__(tokenizer, settings or Settings())

    def _forget_rendering(self) -> None:
        """See ``TextTask``."""
        super()._forget_rendering()
        for cached in ("normal_form", "_shape_options", "_lengths", "_unrolled"):
            vars(self).pop(cached, None)

    @cached_property
    def _shape_options(self) -> ShapeOptions:
        options = ShapeOptions.of(self.settings.data)
        if self.settings.data.rendering == 1 and (
            options != ShapeOptions() or self.settings.data.too_long not in ("drop", "refuse")
        ):
            raise SettingsError(
                "The run reads records as earlier versions did, without settings of their fields and lengths.",
                hint="Leave --column, --too-long and the like out, or start a new run with 'pitstop train'.",
            )
        return options

    def load(self, sources: Sequence[DataSource], options: ReadOptions, cache: DataCache | None) -> Dataset:
        """See ``TextTask``. Raises ``DataError`` also where a setting names a field that no record of any data set has."""
        dataset = super().load(sources, options, cache)
        missing = [
            {
                (notice.reason.partition(":")[0], notice.subject): notice
                for notice in part.counts.notices
                if NO_SUCH_FIELD in notice.reason
            }
            for part in dataset.parts
        ]
        for setting, notice in missing[0].items():
            if all(setting in of_part for of_part in missing):
                raise DataError(str(notice))
        return dataset

    @cached_property
    def normal_form(self) -> NormalForm:
        """Reads records of any shape."""
        return self._form_reader(NormalForm)

    def _form_reader(self, kind: type[Reader]) -> Reader:
        template = ChatTemplate(self.tokenizer).text
        end_token = lambda: str(self.tokenizer.decode([self.chat.end_id]))  # noqa: E731
        control = ControlTokens.of(self.tokenizer)
        return kind(self._shape_options, template, control=control, end_token=end_token)

    def examples(self, record: Record) -> list[Example]:
        """The examples of a record: more than one where the template renders earlier answers differently. Raises ``BadRecord``."""
        examples = self.examples_of([record], BadRows(skip=True))[0]
        if isinstance(examples, BadRecord):
            raise examples
        return examples

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        """The examples of each record, or the error it raised, with a few calls of the tokenizer for all."""
        forms = [self._form(record, bad_rows) for record in records]
        encoded = iter(self._encode([form for form in forms if not isinstance(form, BadRecord)]))
        return [
            form if isinstance(form, BadRecord) else self._outcome(form, next(encoded), record, bad_rows)
            for record, form in zip(records, forms, strict=True)
        ]

    def _outcome(
        self, form: AnyForm, encoded: Encoded | BadRecord, record: Record, bad_rows: BadRows
    ) -> list[Example] | BadRecord:
        if isinstance(encoded, BadRecord):
            encoded.answers = encoded.answers or self._answers(form)
            return encoded
        self._tell(encoded, record, bad_rows)
        group = self.normal_form.group(record) or (record.place if len(encoded.examples) > 1 else "")
        examples = [replace(example, group=group) if group else example for example in encoded.examples]
        return self._fitted(form, examples, record.place, bad_rows)

    @abstractmethod
    def _read(self, record: Record, bad_rows: BadRows) -> AnyForm:
        """The normal form of a record. Raises ``BadRecord``, as ``NoTemplate`` for messages without a chat template."""

    @abstractmethod
    def _encode(self, forms: Sequence[AnyForm]) -> list[Encoded | BadRecord]:
        """The examples of each, or why it has none."""

    @abstractmethod
    def _answers(self, form: AnyForm) -> int:
        """How many answers of a record are to be learnt."""

    @abstractmethod
    def _fitted(self, form: AnyForm, examples: list[Example], place: str, bad_rows: BadRows) -> list[Example] | BadRecord:
        """What is used of the examples of a record, or why nothing is; what is decided goes to ``bad_rows``."""

    def _tell(self, encoded: Encoded, record: Record, bad_rows: BadRows) -> None:
        for notice in encoded.unlearnt:
            bad_rows.leave_out_answers(replace(notice, place=record.place))
        for notice in encoded.notices:
            bad_rows.notices.add(replace(notice, place=record.place))
        if len(encoded.examples) > 1:
            sizes = [len(example) for example in encoded.examples]
            answers = sum(example.answers for example in encoded.examples)
            self._unrolled.update(examples=len(sizes), answers=answers, tokens=sum(sizes), last=sizes[-1])

    def _form(self, record: Record, bad_rows: BadRows) -> AnyForm | BadRecord:
        try:
            return self._read(record, bad_rows)
        except NoTemplate as error:
            raise self._no_template(record) from error
        except BadRecord as error:
            return error

    def _no_template(self, record: Record) -> PitstopError:
        """Messages without a chat template, which concerns all records: a stop, whatever is skipped."""
        hint = "Give one: --chat-template plain, chatml, a .jinja file or the Hub id of the chat model."
        if self.settings.data.chat_template == "none":
            return SettingsError(f"--chat-template none: {record.place} has messages, which need one.", hint=hint)
        model = self.settings.model
        name = portable(str(model.tokenizer if model.from_scratch else model.id))
        return ModelError(f"The tokenizer of {name} has no chat template.", hint=hint)

    def conclude(self, bad_rows: BadRows) -> None:
        """Shapes and fields of the data set, what the chat template is like, and the documents that were split."""
        self.normal_form.conclude(bad_rows)
        of_another = self.chat.end_notices() if self.settings.data.chat_template_text else []
        for notice in (*self.chat.template_notices(), *of_another):
            bad_rows.notices.add(notice)
        self._lengths.conclude(bad_rows)
        if self._unrolled:
            bad_rows.notices.reword(UNROLLED, _in_numbers(self._unrolled))
            self._unrolled.clear()

    @cached_property
    def _unrolled(self) -> Counter[str]:
        """Of records that give several examples so far: these, their answers and tokens, and the tokens of the last of each."""
        return Counter()

    @cached_property
    def _lengths(self) -> LengthFitter:
        data = self.settings.data
        rule = LengthRule(data.max_length, data.too_long, data.overlap)
        return LengthFitter(rule, self.chat.examples, self.tokenizer)

    def shape(self, record: Record) -> str:
        """The fields that decide how it is read: ``messages``, ``prompt+completion``."""
        return self.normal_form.shape(record)

    def relevant_settings(self) -> Mapping[str, Any]:
        """Those of the rendering: how a record is rendered follows from its fields, the tokenizer and these."""
        data = self.settings.data
        return {**self.rendered_by(), "shapes": asdict(self._shape_options), "too_long": data.too_long, "overlap": data.overlap}


class SftTask(FormTask[Form]):
    """Turns records into examples to be learnt."""

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        """See ``FormTask``. A run of the first rendering reads records as it did when it began."""
        if self.settings.data.rendering == 1 and self._shape_options == ShapeOptions():
            first = self.chat.encode_all([record.fields for record in records])
            return [item if isinstance(item, BadRecord) else list(item.examples) for item in first]
        return super().examples_of(records, bad_rows)

    def _read(self, record: Record, bad_rows: BadRows) -> Form:
        return self.normal_form.read(record, bad_rows)

    def _encode(self, forms: Sequence[Form]) -> list[Encoded | BadRecord]:
        return self.chat.encode_all(forms)

    def _answers(self, form: Form) -> int:
        if isinstance(form, Conversation):
            return sum(form.learnt)
        return 0 if isinstance(form, Document) else 1

    def _fitted(self, form: Form, examples: list[Example], place: str, bad_rows: BadRows) -> list[Example] | BadRecord:
        return self._lengths.fit(form, examples, place, bad_rows)

    @property
    def too_long_remedy(self) -> str:
        """See ``TextTask``."""
        return "Raise --max-length, or shorten them with --too-long left or right."


def _in_numbers(unrolled: Counter[str]) -> str:
    """The reason for several examples of a record, with what they cost."""
    examples, answers = unrolled["examples"], unrolled["answers"]
    each = (
        f"one example for each of {answers:,} answers"
        if examples == answers
        else f"{examples:,} examples for {answers:,} answers"
    )
    return f"{UNROLLED.replace('several examples', each)}: {unrolled['tokens'] / unrolled['last']:.1f} times the tokens"
