"""What a training task is: how its data is read and rendered, and how answers are scored.

The loop, the loss (cross-entropy at the learnt tokens), packing, checkpoints and resuming are the same for every task. A task is
one module with a subclass of ``Task`` and one line in ``registry.TASKS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pitstop.configs.load import settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.trainers.data.content import identify
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRows, Record, read_records

if TYPE_CHECKING:
    import torch

    from pitstop.trainers.data.dataset import Dataset

Direction = Literal["min", "max"]


class BadRecord(ValueError):
    """A record that the task cannot use; the message is the reason."""


class Interrupted(Exception):
    """An evaluation was given up because a signal arrived."""


@dataclass(frozen=True)
class Scoring:
    """What a scorer computes with.

    ``gather`` gives each process's bytes in rank order; every process calls it equally often. ``give_up`` is asked between
    batches where one process decides alone; where it says so, the scorer raises ``Interrupted``.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    batch_size: int
    max_new_tokens: int
    limit: int | None = None  # examples to score, the first ones; None is all
    rank: int = 0
    world_size: int = 1
    gather: Callable[[bytes], list[bytes]] = lambda data: [data]
    give_up: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raise ``Interrupted`` where a signal wants the evaluation to end."""
        if self.world_size == 1 and self.give_up():
            raise Interrupted


class Task(ABC):
    """Turns records into examples and scores what the model makes of them."""

    name: ClassVar[str]
    splits_itself: ClassVar[bool] = False
    """Whether the evaluation data comes out of the training data, by the task's own rule."""
    headline: ClassVar[tuple[str, ...]] = ()
    """Those of the task's metrics that the line after an evaluation shows; the log has all."""

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.say: Callable[[str], None] = lambda text: None
        """Tells the user what is being done with the data, a line at a time; whoever reads data may put a reporter here."""

    def records(self, spec: str, bad_rows: BadRows, *, split: str, token: str | None) -> Iterator[Record]:
        """Yield the records of one ``--dataset`` value; raises ``DataError`` for what cannot be read."""
        return read_records(spec, bad_rows, split=split, token=token)

    def content(self, spec: str, *, split: str, token: str | None, digest: Callable[[Path], str]) -> str | None:
        """What changes with the data that ``records`` reads for a value, so that tokenised data can be kept by it.

        ``digest`` gives the SHA-256 of a file. None, which a task that reads its data itself gives, keeps none.
        """
        return identify(spec, split=split, token=token, digest=digest) if type(self).records is Task.records else None

    def relevant_settings(self) -> Mapping[str, Any]:
        """The settings that ``examples`` depends on besides ``max_length``; by default all that any task could look at."""
        settings = settings_to_dict(self.settings)
        for name in ("lora", "quantization", "naming", "hub", "model"):
            settings.pop(name, None)
        for name in ("train", "eval", "eval_fraction", "packing", "cache", "cache_gb"):
            settings["data"].pop(name, None)
        settings["training"] = {"seed": self.settings.training.seed}
        return settings

    @abstractmethod
    def examples(self, record: Record) -> list[Example]:
        """Tokenise one record. Raises ``BadRecord`` with the reason it cannot be used."""

    def examples_of(self, records: Sequence[Record]) -> list[list[Example] | BadRecord]:
        """``examples`` of each record, or the error it raised; a task may tokenise them all at once, with the same result."""
        found: list[list[Example] | BadRecord] = []
        for record in records:
            try:
                found.append(self.examples(record))
            except BadRecord as error:
                found.append(error)
        return found

    @abstractmethod
    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids that ``prompt`` has in front of an answer: what generation starts from."""

    def metrics(self, evaluation: Dataset) -> Mapping[str, Direction]:
        """The metrics that ``score`` will give for this data, and which way is better; empty without a scorer."""
        del evaluation
        return {}

    def score(self, evaluation: Dataset, scoring: Scoring) -> dict[str, float]:
        """The task's own metrics; all processes call this together. Raises ``Interrupted``."""
        del evaluation, scoring
        return {}
