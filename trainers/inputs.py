"""Everything that training reads before it spends anything: base model files, tokenizer, data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Counts, Dataset, hold_out, load_dataset
from pitstop.trainers.models.family import family_of
from pitstop.trainers.models.source import KnownBase, ModelSource, NoModel
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.base import Task
from pitstop.trainers.tasks.registry import make_task

EVALUATION_METRICS: dict[str, str] = {"val_loss": "min", "val_perplexity": "min", "val_token_accuracy": "max"}
"""What every evaluation gives, and which way is better."""


@dataclass(frozen=True)
class Inputs:
    """The base model's files, its tokenizer, the task and its data."""

    source: ModelSource
    tokenizer: Any
    task: Task
    train: Dataset
    eval: Dataset | None

    def data_record(self) -> dict[str, Any]:
        """What the run's metadata says about the data."""
        record: dict[str, Any] = {
            "fingerprint": self.train.fingerprint,
            "sequences": len(self.train),
            **_counts(self.train.counts),
        }
        if self.eval is not None:
            record["eval"] = {"fingerprint": self.eval.fingerprint, "sequences": len(self.eval), **_counts(self.eval.counts)}
        return record


def _counts(counts: Counts) -> dict[str, int]:
    return {
        "records": counts.records,
        "used": counts.used,
        "too_long": counts.too_long,
        "bad": counts.bad,
        "tokens": counts.tokens,
        "supervised_tokens": counts.supervised_tokens,
        **({"cut": counts.cut} if counts.cut else {}),
    }


def read_inputs(
    settings: Settings,
    reporter: Reporter,
    known: KnownBase | None = None,
    *,
    own_copy: Callable[[], ModelSource | None] = lambda: None,
    source: ModelSource | None = None,
    packing: bool = True,
) -> Inputs:
    """Find the model and read the data, cheapest mistakes first.

    ``known`` is what a resumed run recorded of its base, and ``own_copy`` gives the run's own copy of it, which is taken where
    the model is not found; ``source`` is a model that is found already. ``packing`` is false for models that cannot keep documents of one row apart. Raises ``ModelError``,
    ``DataError`` and ``SettingsError`` (a monitored metric that there will not be).
    """
    if source is None:
        with main_process_first():
            source = _find(settings, known, own_copy, reporter)
    tokenizer = family_of(settings).tokenizer(source)
    task = make_task(settings, tokenizer)
    train, evaluation = read_data(settings, task, reporter, packing=packing)
    _check_monitor(settings, task, evaluation)
    return Inputs(source, tokenizer, task, train, evaluation)


def _find(
    settings: Settings, known: KnownBase | None, own_copy: Callable[[], ModelSource | None], reporter: Reporter
) -> ModelSource:
    try:
        return family_of(settings).find(settings, known)
    except NoModel:
        copy = own_copy()
        if copy is None:
            raise
    reporter.line(f"{copy.model_id} is not found from here: the run's own copy of it is used, with its tokenizer.")
    return copy


def read_data(settings: Settings, task: Task, reporter: Reporter, *, packing: bool) -> tuple[Dataset, Dataset | None]:
    """The training and, if there is any, the evaluation data."""
    data = settings.data
    options: dict[str, Any] = {
        "max_length": data.max_length,
        "packing": data.packing and packing,
        "skip_bad_rows": data.skip_bad_rows,
        "token": settings.hub.token.get_secret_value() if settings.hub.token else None,
    }
    train = load_dataset(data.train, task, **options)
    _report_losses(train, "Training data", settings, reporter)
    if data.eval or task.splits_itself:
        evaluation = load_dataset(data.eval or data.train, task, split="validation", **options)
        _report_losses(evaluation, "Evaluation data", settings, reporter)
        return train, evaluation
    if data.eval_fraction > 0:
        return hold_out(
            train, data.eval_fraction, seed=settings.training.seed, max_length=data.max_length, packing=options["packing"]
        )
    return train, None


def _report_losses(data: Dataset, name: str, settings: Settings, reporter: Reporter) -> None:
    counts = data.counts
    if counts.too_long:
        reporter.warn(
            f"{name}: {counts.too_long:,} of {counts.records:,} records are longer than MAX_LENGTH = {settings.data.max_length} tokens and were left out."
        )
    if counts.cut:
        reporter.warn(
            f"{name}: the prompts of {counts.cut:,} of {counts.used:,} examples were cut from the left to fit MAX_LENGTH = {settings.data.max_length} tokens."
        )
    if counts.bad:
        reporter.warn(f"{name}: {counts.bad:,} malformed rows were left out, among them: {'; '.join(counts.bad_reasons)}.")


def _check_monitor(settings: Settings, task: Task, evaluation: Dataset | None) -> None:
    monitor, mode = settings.training.checkpoint.monitor, settings.training.checkpoint.mode
    if evaluation is None and monitor not in ("val_loss", "train_loss"):
        raise SettingsError(f"MONITOR = {monitor} needs evaluation data.", hint="Give --eval-dataset or --eval-fraction.")
    scores = task.metrics(evaluation) if evaluation is not None else {}
    better: dict[str, str] = {**EVALUATION_METRICS, "train_loss": "min", **scores}
    if monitor not in better:
        raise SettingsError(f"MONITOR = {monitor}: there is no such metric.", hint=f"Known: {', '.join(better)}.")
    if better[monitor] != mode and monitor != "train_loss":
        raise SettingsError(
            f"MONITOR = {monitor} with MODE = {mode} would keep the worst checkpoint.", hint=f"Give --mode {better[monitor]}."
        )
    if monitor in scores and settings.evaluation.score_examples == 0:
        raise SettingsError(
            f"MONITOR = {monitor} is not computed with EVAL_SCORE_EXAMPLES = 0.", hint="Give --eval-score-examples 100, say."
        )


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Let the first process run the body before the others, so that a download happens once."""
    later = dist.is_initialized() and dist.get_rank() > 0
    if later:
        dist.barrier()
    yield
    if dist.is_initialized() and not later:
        dist.barrier()
