"""Everything that training reads before it spends anything: base model files, tokenizer, data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from pitstop.configs.datasets import DataSource, parse_sources
from pitstop.configs.errors import ModelError, SettingsError
from pitstop.configs.notices import Notice, shortened
from pitstop.configs.paths import cache_directory
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.cache.key import is_large, tokenizer_key
from pitstop.trainers.data.dataset import Dataset, Sequences
from pitstop.trainers.data.duplicates import in_training
from pitstop.trainers.data.mixture import Mixture
from pitstop.trainers.data.preview.tokens import LEARNT, in_short
from pitstop.trainers.data.reading import ReadOptions
from pitstop.trainers.machine.processes import main_process_first
from pitstop.trainers.models.limits import ModelLimits
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.models.templates import keep_template, put_template
from pitstop.trainers.reporter import Display, Reporter
from pitstop.trainers.tasks.base import Task
from pitstop.trainers.tasks.registry import family_of, make_task
from pitstop.trainers.tasks.text import TextTask, on_day

_LONGEST_TOKENISING = timedelta(days=2)
_SHOWN_CHARACTERS = 360
"""Of the first example."""


@dataclass(frozen=True)
class Inputs:
    """The base model's files, its tokenizer, the task and its data."""

    source: ModelSource
    tokenizer: Any
    task: Task
    train: Sequences
    eval: Sequences | None
    limits: ModelLimits | None = None  # of a model of text

    def evaluates(self, settings: Settings) -> bool:
        """Whether the checkpoints are judged by evaluations, and not by the training loss."""
        return self.eval is not None and settings.training.checkpoint.monitor != "train_loss"

    def without_packing(self, settings: Settings, reporter: Reporter) -> Inputs:
        """The data read anew, one example a row: for models that cannot keep examples of one row apart."""
        train, evaluation = read_data(settings, self.task, reporter, packing=False, model=self.source.path)
        return replace(self, train=train, eval=evaluation)

    def show_first(self, display: Display) -> None:
        """Show the first example and what is learnt of it, in 8 lines of a narrow terminal at most. Nothing for images.

        On the display alone: logs go to other places than data does.
        """
        if isinstance(self.train, Dataset):
            text = in_short(self.train.examples[0], self.tokenizer, _SHOWN_CHARACTERS)
            display.line(f"The first example; what is learnt is in {LEARNT[0]} {LEARNT[1]} (pitstop preview shows more):\n{text}")

    def data_record(self) -> dict[str, Any]:
        """What the run's metadata says about the data."""
        template = {"template": self.template} if self.template is not None else {}
        return {**_record(self.train), **template, **({"eval": _record(self.eval)} if self.eval is not None else {})}

    @property
    def template(self) -> str | None:
        """SHA-256 of the chat template; None where there is none."""
        return self.task.chat.template.digest if isinstance(self.task, TextTask) else None


def _record(data: Sequences) -> dict[str, Any]:
    return {"fingerprint": data.fingerprint, "sequences": len(data), **data.described(), **_sources(data)}


def _sources(data: Sequences) -> dict[str, Any]:
    """The counts of each of several data sets; ``sequences_per_epoch`` is what its weight gives it."""
    if not isinstance(data, Mixture):
        return {}
    parts = zip(data.names, data.parts, data.share, strict=True)
    return {
        "sources": [
            {"name": name, "sequences": len(part), "sequences_per_epoch": share, **part.described()}
            for name, part, share in parts
        ]
    }


def read_inputs(
    settings: Settings, reporter: Reporter, find: Callable[[], ModelSource] | None = None, *, day: date | None = None
) -> Inputs:
    """Find the model and read the data, cheapest mistakes first.

    ``find`` finds the model, where it is not looked for as the settings say. ``day`` (today) is what a chat template that asks for
    the date is told, where the settings do not say; those of the task do then. Raises ``ModelError``, ``DataError`` and
    ``SettingsError`` (a monitored metric that there will not be).
    """
    family = family_of(settings)
    with main_process_first():
        source = find() if find is not None else family.find(settings, None)
        settings = keep_template(settings)
    tokenizer = family.tokenizer(source)
    put_template(tokenizer, settings)
    model = family.check(source, reporter.notice)
    settings = on_day(settings, tokenizer, day or datetime.now().date())
    task = make_task(settings, tokenizer)
    task.say = reporter.line
    _tell_template(task, reporter)
    limits = ModelLimits.of(model, tokenizer, source) if isinstance(task, TextTask) else None
    if limits is not None:
        limits.check_tokenizer(reporter.notice)
    train, evaluation = read_data(settings, task, reporter, packing=True, model=source.path)
    _check_monitor(settings, task, evaluation)
    if limits is not None:
        _check_limits(limits, task, train, evaluation, reporter)
    return Inputs(source, tokenizer, task, train, evaluation, limits)


def _check_limits(limits: ModelLimits, task: Task, train: Sequences, evaluation: Sequences | None, reporter: Reporter) -> None:
    settings = task.settings
    limits.check_data(train, "the training data", settings.data.max_length, reporter.notice)
    if isinstance(task, TextTask) and isinstance(evaluation, Dataset):
        limits.check_data(evaluation, "the evaluation data", settings.data.max_length, reporter.notice)
        limits.check_answers(task.answered(evaluation), settings.evaluation.max_new_tokens)


def _tell_template(task: Task, reporter: Reporter) -> None:
    """Say what day the chat template is told. Raises ``SettingsError`` for options that it does not know, ``ModelError`` for what is no
    template, and for one that writes another text each time.
    """
    if not isinstance(task, TextTask):
        return
    template, day = task.chat.template, task.settings.data.template_date
    if template.fault is not None:
        raise ModelError(
            f"The chat template of the tokenizer is no template: {template.fault}.",
            hint="Correct the model's chat_template.jinja, or give another one with --chat-template.",
        )
    if template.draws is not None:
        raise ModelError(
            f"The chat template of the tokenizer draws at random ({template.draws}): no two starts would train on the same tokens.",
            hint="Take that out of the model's chat_template.jinja, or give another one with --chat-template.",
        )
    if template.asks_for_date:
        reason = "The chat template writes the date and is told {subject}"
        reporter.notice(Notice(reason, str(day), remedy="--template-date sets another day."))
    elif day is not None:
        reason = "The chat template does not write the date: --template-date {subject} is not used"
        reporter.notice(Notice(reason, day, loss=True))


def read_data(
    settings: Settings, task: Task, reporter: Reporter, *, packing: bool, model: Path
) -> tuple[Sequences, Sequences | None]:
    """The training and, if there is any, the evaluation data; ``model`` is the directory that the tokenizer is from.

    Where there is much of it the first process reads it alone, and the others map into memory what that has kept.
    """
    data = settings.data
    if data.split != "train" and (task.splits_itself() or not isinstance(task, TextTask)):
        raise SettingsError(f"--split {data.split}: the task {task.name} makes its own splits.", hint="Leave --split out.")
    if data.split != "train" and (files := [s.spec for s in data.training_sources if Path(s.spec).expanduser().is_file()]):
        reason = f"--split {data.split} is not used for {{count}} [data set|data sets], which [is a file|are files] and [has|have] one split"
        reporter.notice(Notice(reason, count=len(files), place=files[0], loss=True))
    reader = DataReader.of(settings, task, reporter, packing=packing, model=model)
    with reader.taking_turns():
        train = reader.load(settings.data.training_sources, data.split, "Training data")
        if isinstance(task, TextTask) and isinstance(train, Dataset):
            task.ask_with(train.counts.asked)
        if data.eval or task.splits_itself():
            evaluation: Sequences | None = reader.evaluation()
        else:
            train, evaluation = reader.held_out(train) if data.eval_fraction > 0 else (train, None)
    if isinstance(train, Dataset) and isinstance(evaluation, Dataset):
        for warning in in_training(evaluation.examples, train.examples):
            reporter.notice(warning)
    return train, evaluation


def read_split(
    settings: Settings, task: Task, reporter: Reporter, *, packing: bool, model: Path, split: str, specs: Sequence[str] = ()
) -> Sequences:
    """One split as training reads it: ``train``, ``validation`` or ``test``; of ``specs`` instead of the run's own data if given.

    A test split is there where the task makes it or data comes from the Hub. Raises ``SettingsError`` where there is no such split.
    """
    data = settings.data
    reader = DataReader.of(settings, task, reporter, specs, packing=packing, model=model)
    if specs:
        return reader.load(parse_sources(specs), split, "Data")
    if split == "test":
        sources = settings.data.evaluation_sources
        if not task.has_test_split(sources):
            raise SettingsError("The run's data are files, which have no test split.", hint="Give the test data with --dataset.")
        return reader.load(sources, split, "Test data")
    if split == "validation" and (data.eval or task.splits_itself()):
        return reader.evaluation()
    train = reader.load(settings.data.training_sources, data.split, "Training data")
    if data.eval or task.splits_itself() or data.eval_fraction == 0:
        if split == "validation":
            raise SettingsError("The run has no evaluation data.", hint="Give some with --dataset, or --split train.")
        return train
    return reader.held_out(train)[split == "validation"]


@dataclass(frozen=True)
class DataReader:
    """How the data of one run is read."""

    settings: Settings
    task: Task
    reporter: Reporter
    packing: bool
    cache: DataCache | None

    @classmethod
    def of(
        cls, settings: Settings, task: Task, reporter: Reporter, specs: Sequence[str] = (), *, packing: bool, model: Path
    ) -> DataReader:
        """With a cache where there is much data in ``specs``, without them in the run's own."""
        lists = [specs] if specs else [settings.data.train, settings.data.eval]
        large = (
            isinstance(task, TextTask)
            and settings.data.cache
            and is_large([source.spec for specs in lists for source in parse_sources(specs)])
        )
        return cls(settings, task, reporter, packing, _cache(settings, task, model, reporter) if large else None)

    def taking_turns(self) -> contextlib.AbstractContextManager[None]:
        """Let the first process fill the cache, or fetch images, before the others look for them."""
        alone = self.cache is not None or not isinstance(self.task, TextTask)
        return main_process_first(_LONGEST_TOKENISING) if alone else contextlib.nullcontext()

    def load(self, sources: Sequence[DataSource], split: str, name: str) -> Sequences:
        """Read, and say what was left out."""
        dataset = self.task.load(sources, self._options(split), self.cache)
        _report_losses(dataset, name, self.settings, self.reporter)
        return dataset

    def _options(self, split: str) -> ReadOptions:
        data, hub = self.settings.data, self.settings.hub
        return ReadOptions(
            data.max_length,
            data.packing and self.packing,
            data.skip_bad_rows,
            split,
            hub.token_value,
            data.max_records,
            data.too_long == "refuse",
            data.duplicates == "drop",
        )

    def evaluation(self) -> Sequences:
        """The evaluation data, where it is not held out from the training data."""
        return self.load(self.settings.data.evaluation_sources, "validation", "Evaluation data")

    def held_out(self, train: Sequences) -> tuple[Sequences, Sequences]:
        """The training data without the examples that are held out, and these."""
        return self.task.hold_out(train, self.settings.data.eval_fraction, self._options("train"))


def _cache(settings: Settings, task: Task, model: Path, reporter: Reporter) -> DataCache:
    return DataCache(
        cache_directory() / "data",
        tokenizer_key=tokenizer_key(task.tokenizer, model),
        limit_bytes=round(settings.data.cache_gb * 10**9),
        tell=reporter.line,
        warn=reporter.warn,
    )


def _report_losses(data: Sequences, name: str, settings: Settings, reporter: Reporter) -> None:
    counts, longest = data.counts, f"MAX_LENGTH = {settings.data.max_length} tokens"
    if counts.cut:
        reason = f"the prompts of {{count}} of {counts.used:,} examples were cut from the left to fit {longest}"
        reporter.notice(Notice(reason, count=counts.cut, loss=True), source=name)
    for notice in shortened(counts.notices):
        reporter.notice(notice, source=name)


def _check_monitor(settings: Settings, task: Task, evaluation: Sequences | None) -> None:
    monitor, mode = settings.training.checkpoint.monitor, settings.training.checkpoint.mode
    if evaluation is None and monitor not in ("val_loss", "train_loss"):
        raise SettingsError(f"MONITOR = {monitor} needs evaluation data.", hint="Give --eval-dataset or --eval-fraction.")
    scores = task.metrics(evaluation) if evaluation is not None else {}
    better: dict[str, str] = {**task.always, "train_loss": "min", **scores}
    if evaluation is not None:
        better |= {f"val_loss_{name}": "min" for name in evaluation.names}
    if monitor not in better:
        raise SettingsError(f"MONITOR = {monitor}: there is no such metric.", hint=f"Known: {', '.join(better)}.")
    if better[monitor] == "max" and mode == "min":  # the default; who says max of a loss means it
        raise SettingsError(
            f"MONITOR = {monitor} with MODE = {mode} would keep the worst checkpoint.", hint=f"Give --mode {better[monitor]}."
        )
    if monitor in scores and settings.evaluation.score_examples == 0:
        raise SettingsError(
            f"MONITOR = {monitor} is not computed with EVAL_SCORE_EXAMPLES = 0.", hint="Give --eval-score-examples 100, say."
        )
