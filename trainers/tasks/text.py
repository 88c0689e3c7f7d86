"""Tasks whose records become tokens: how they are read and rendered. Packing and the loss are the same for all of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pitstop.configs.datasets import DataSource
from pitstop.configs.errors import SettingsError
from pitstop.configs.load import settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.cache.key import identify
from pitstop.trainers.data.chat.options import RenderingOptions
from pitstop.trainers.data.chat.renderer import ChatRenderer
from pitstop.trainers.data.chat.template import ChatTemplate
from pitstop.trainers.data.dataset import Dataset, Sequences
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.files.places import ANNOTATED_SUFFIXES, EXAMPLE_SCHEME, hub_place, read_records
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import NO_MORE, BadRecord, BadRows, Formats, Record, UnknownFormat
from pitstop.trainers.data.splits import hold_out
from pitstop.trainers.tasks.base import Direction, Task


def on_day(settings: Settings, tokenizer: Any, day: date) -> Settings:
    """``settings`` that name the day which the chat template is told: ``day`` unless they do, where the template writes the date."""
    if settings.data.template_date is not None or settings.training.makes_images or not ChatTemplate(tokenizer).asks_for_date:
        return settings
    return replace(settings, data=replace(settings.data, template_date=day.isoformat()))


class TextTask(Task):
    """Turns records into examples for a causal language model."""

    unit: ClassVar[str] = "tokens"
    always: ClassVar[Mapping[str, Direction]] = {"val_loss": "min", "val_perplexity": "min", "val_token_accuracy": "max"}

    extra_formats: ClassVar[Formats] = NO_MORE
    """The formats that it reads beside the usual ones, by ending."""

    asked: Mapping[str, Any] | None = None
    """The options that the chat template asks with in all of the training data; None where they differ or are not known."""

    def ask_with(self, options: Mapping[str, Any] | None) -> None:
        """Let prompts, and evaluation data as far as it fits, be rendered with ``options``, those of all answers of the training data."""
        if options != self.asked:
            self.asked = options
            self._forget_rendering()

    def _forget_rendering(self) -> None:
        """Drop what was made of the settings and ``asked``."""
        vars(self).pop("chat", None)

    @cached_property
    def chat(self) -> ChatRenderer:
        """Renders prompts and answers by the tokenizer's chat template. Raises ``SettingsError``."""
        data = self.settings.data
        options = RenderingOptions.of(data)
        if data.rendering == 1 and options != RenderingOptions():
            raise SettingsError(
                "The run renders records as earlier versions did, without settings of the chat template.",
                hint="Leave --thinking and the like out, or start a new run with 'pitstop train'.",
            )
        day = None if data.template_date is None else date.fromisoformat(data.template_date)
        origin = data.chat_template if data.chat_template_text else "the tokenizer's"
        renderer = ChatRenderer(
            self.tokenizer, version=data.rendering, day=day, options=replace(options, asked=self.asked), origin=origin
        )
        renderer.check_options()
        return renderer

    def load(self, sources: Sequence[DataSource], options: ReadOptions, cache: DataCache | None) -> Dataset:
        """Read, tokenise and pack; several data sets are a mixture."""
        return load_dataset(sources, self, options, cache=cache)

    def hold_out(self, train: Sequences, fraction: float, options: ReadOptions) -> tuple[Dataset, Dataset]:
        """Whole articles, where records say which they are from."""
        assert isinstance(train, Dataset)
        return hold_out(train, fraction, seed=self.settings.training.seed, max_length=options.max_length, packing=options.packing)

    def has_test_split(self, sources: Sequence[DataSource]) -> bool:
        """Files have none, unless the task makes one of them."""
        specs = [source.spec for source in sources]
        return self.splits_itself() or not any(
            spec.startswith(EXAMPLE_SCHEME) or Path(spec).expanduser().exists() or hub_place(spec) is None for spec in specs
        )

    def records(self, spec: str, bad_rows: BadRows, *, split: str, token: str | None) -> Iterator[Record]:
        """Yield the records of one ``--dataset`` value; raises ``DataError`` for what cannot be read."""
        try:
            yield from self._read_records(spec, bad_rows, split=split, token=token)
        except UnknownFormat as error:
            if not spec.lower().endswith(ANNOTATED_SUFFIXES):
                raise
            raise UnknownFormat(error.message, hint=f"{error.hint} Files with this ending are read by --task ner.") from error

    def _read_records(self, spec: str, bad_rows: BadRows, *, split: str, token: str | None) -> Iterator[Record]:
        first = self.settings.data.rendering == 1
        return read_records(spec, bad_rows, split=split, token=token, extra_formats=self.extra_formats, first=first)

    def shape(self, record: Record) -> str:
        """What kind of record it is, in a word or two for people; by default all are of one kind."""
        del record
        return ""

    def content(self, spec: str, *, split: str, token: str | None, digest: Callable[[Path], str]) -> str | None:
        """What changes with the data that ``records`` reads for a value, so that tokenised data can be kept by it.

        ``digest`` gives the SHA-256 of a file. None, which a task that reads its data itself gives, keeps none.
        """
        if type(self).records is not TextTask.records:
            return None
        return self._identified(spec, split=split, token=token, digest=digest)

    def _identified(self, spec: str, *, split: str, token: str | None, digest: Callable[[Path], str]) -> str | None:
        first = self.settings.data.rendering == 1
        return identify(spec, split=split, token=token, digest=digest, extra_formats=self.extra_formats, first=first)

    def relevant_settings(self) -> Mapping[str, Any]:
        """The settings that ``examples`` depends on besides ``max_length``; by default all that any task could look at."""
        settings = settings_to_dict(self.settings)
        for name in ("lora", "quantization", "naming", "hub", "model"):
            settings.pop(name, None)
        for name in ("train", "eval", "eval_fraction", "packing", "cache", "cache_gb"):
            settings["data"].pop(name, None)
        settings["training"] = {"seed": self.settings.training.seed}
        settings["data"] |= self.rendered_by()
        return settings

    def rendered_by(self) -> dict[str, Any]:
        """What the rendering follows from besides record and tokenizer: its version and settings, and the day where the template writes it."""
        day = self.chat.template.day
        return {
            "rendering": self.settings.data.rendering,
            "template_date": None if day is None else day.isoformat(),
            "options": asdict(self.chat.options),
            "stops": sorted(self.chat.stops),
        }

    @abstractmethod
    def examples(self, record: Record) -> list[Example]:
        """Tokenise one record. Raises ``BadRecord`` with the reason it cannot be used."""

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        """``examples`` of each record, or the error it raised; a task may tokenise them all at once, with the same result.

        What else is decided about records, such as a field that is not used, goes to ``bad_rows``.
        """
        del bad_rows
        results: list[list[Example] | BadRecord] = []
        for record in records:
            try:
                results.append(self.examples(record))
            except BadRecord as error:
                results.append(error)
        return results

    def with_settings(self, settings: Mapping[str, Any]) -> TextTask:
        """The task as a data set with settings of its own has it: ``settings`` are those of the group ``data``, by name."""
        task = copy(self)
        task.settings = replace(self.settings, data=replace(self.settings.data, **settings))
        task._forget_rendering()
        return task

    @property
    def too_long_remedy(self) -> str:
        """What the user can do about records that are left out, since they are too long."""
        return "Raise --max-length to keep them."

    def conclude(self, bad_rows: BadRows) -> None:
        """Add to ``bad_rows`` what is known behind the last record of a data set; nothing by default."""
        del bad_rows

    def answered(self, evaluation: Dataset) -> Sequence[Example]:
        """The examples that ``score`` generates answers to; none where it scores otherwise."""
        del evaluation
        return ()

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids that ``prompt`` has in front of an answer: what generation starts from."""
        return self.chat.prompt_ids(prompt)
