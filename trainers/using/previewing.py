"""What training would learn of its data, for ``pitstop preview``: the tokenizer alone is loaded, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitstop.configs.datasets import DataSource
from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.key import is_large
from pitstop.trainers.data.preview.gathering import DataPreview, Wish, gather
from pitstop.trainers.data.reading import ReadOptions
from pitstop.trainers.models.source import find_tokenizer
from pitstop.trainers.models.templates import keep_template, tokenizer_of
from pitstop.trainers.tasks.preferences import PreferenceRecords
from pitstop.trainers.tasks.registry import make_task
from pitstop.trainers.tasks.text import TextTask


@dataclass(frozen=True)
class Previewed:
    """One data set, which is for training or for evaluation; ``in_training`` are examples of the latter that are trained on, too.

    ``learnt``: the task that the settings name learns from such records.
    """

    data: DataPreview
    evaluates: bool
    in_training: int = 0
    learnt: bool = True


class Previewer:
    """Reads the data that the settings name. Raises ``ModelError`` for a tokenizer that cannot be had, ``SettingsError`` for images."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        if settings.training.makes_images:
            raise SettingsError(
                "pitstop preview shows tokens, and the task diffusion learns images.", hint="pitstop plan counts the images."
            )
        settings = keep_template(settings)
        self._settings, self._tell = settings, tell
        self.tokenizer: Any = tokenizer_of(settings, find_tokenizer(settings))
        task = make_task(settings, self.tokenizer)
        assert isinstance(task, TextTask)
        self.task = task
        task.say = tell

    def previews(self, wish: Wish) -> Iterator[Previewed]:
        """Each data set, as soon as it is read: those for training first. Raises ``DataError``."""
        trained: list[np.ndarray] = []
        for source in self._settings.data.training_sources:
            data = self._gather(source, self._settings.data.split, wish)
            trained.append(data.figures.hashes)
            yield Previewed(data, evaluates=False, learnt=not self._are_preferences(source))
        # What a task splits off by itself is made with a model of its own.
        has_own = bool(self._settings.data.eval) and not self.task.splits_itself()
        for source in self._settings.data.evaluation_sources if has_own else ():
            data = self._gather(source, "validation", wish)
            shared = np.isin(data.figures.hashes, np.concatenate(trained))
            yield Previewed(data, evaluates=True, in_training=int(shared.sum()), learnt=not self._are_preferences(source))

    def _are_preferences(self, source: DataSource) -> bool:
        """Whether the records are preferences, which no task learns from."""
        return self.task.name == "sft" and source.settings.get("shape", self._settings.data.shape) == "preference"

    def _gather(self, source: DataSource, split: str, wish: Wish) -> DataPreview:
        if is_large([source.spec]):
            self._tell(f"Reading all of {source.spec} …")
        data = self._settings.data
        options = ReadOptions(
            data.max_length,
            packing=False,
            split=split,
            token=self._settings.hub.token_value,
            max_records=source.settings.get("max_records", data.max_records),
        )
        task = self.task.with_settings(source.settings) if source.settings else self.task
        if self._are_preferences(source):
            task = PreferenceRecords(self.tokenizer, task.settings)
        return gather(source.spec, task, options, wish)
