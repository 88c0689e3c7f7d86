"""What a training task is: how its data is read, and how what the model makes of it is scored.

The loop, checkpoints and resuming are the same for every task. A task is one module with a subclass of ``Task`` (of
``text.TextTask``, where records become tokens) and one line in ``registry.TASKS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pitstop.configs.datasets import DataSource
from pitstop.configs.schema import Settings
from pitstop.trainers.data.how import Reading
from pitstop.trainers.machine.memory_pieces import Pieces

if TYPE_CHECKING:
    import torch

    from pitstop.checkpointing.runs.run_directory import RunDirectory
    from pitstop.trainers.data.cache.cache import DataCache
    from pitstop.trainers.data.dataset import Sequences
    from pitstop.trainers.loop.engine import Engine
    from pitstop.trainers.loop.progress import Progress
    from pitstop.trainers.loop.sample_hook import AtEvaluations
    from pitstop.trainers.machine.signals import SignalFlag
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.tracking.tracking import Tracking

Direction = Literal["min", "max"]


class BadRecord(ValueError):
    """A record that the task cannot use; the message is the reason."""


class Interrupted(Exception):
    """An evaluation was given up because a signal arrived."""


@dataclass(frozen=True)
class Scoring:
    """What a scorer computes with.

    ``gather`` gives each process's bytes in rank order; every process calls it equally often. ``give_up`` is asked between
    batches where one process decides alone; where it says so, the scorer raises ``Interrupted``. ``hear`` is given the answers
    to the first examples by a scorer that generates some. ``hint`` is for whoever has no memory for a single example.
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
    hear: Callable[[list[str]], None] = lambda answers: None
    hint: str = (
        "One example does not fit: shorter answers (--eval-max-new-tokens) take less, --eval-score-examples 0 scores none."
    )

    def pieces(self) -> Pieces:
        """Batches that get smaller where memory runs out."""
        return Pieces(self.batch_size, self.hint)

    def check(self) -> None:
        """Raise ``Interrupted`` where a signal wants the evaluation to end."""
        if self.world_size == 1 and self.give_up():
            raise Interrupted


@dataclass(frozen=True)
class Training:
    """A training under way, as far as a task may look at it. ``run`` is there in the first process alone."""

    engine: Engine
    progress: Progress
    signals: SignalFlag
    reporter: Reporter
    tracking: Tracking
    run: RunDirectory | None


class Task(ABC):
    """Reads data and scores what the model makes of it. ``tokenizer`` is None where the models have none."""

    name: ClassVar[str]
    unit: ClassVar[str]
    """What is counted and averaged over, in the plural: it names the columns of the log."""
    always: ClassVar[Mapping[str, Direction]]
    """The metrics that every evaluation gives, and which way is better."""
    headline: ClassVar[tuple[str, ...]] = ()
    """Those of the task's metrics that the line after an evaluation shows; the log has all."""

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.say: Callable[[str], None] = lambda text: None
        """Tells the user what is being done with the data, a line at a time; whoever reads data may put a reporter here."""

    @abstractmethod
    def load(self, sources: Sequence[DataSource], how: Reading, cache: DataCache | None) -> Sequences:
        """Read data. Raises ``DataError`` for what cannot be read and where nothing usable is left, and ``SettingsError``."""

    @abstractmethod
    def hold_out(self, train: Sequences, fraction: float, how: Reading) -> tuple[Sequences, Sequences]:
        """Split off a share for evaluation, a function of the seed: (training, evaluation). ``DataError`` where there is too little."""

    def splits_itself(self) -> bool:
        """Whether the evaluation data comes out of the training data, by the task's own rule."""
        return False

    def has_test_split(self, sources: Sequence[DataSource]) -> bool:
        """Whether data has a test split, as far as can be told without reading it."""
        del sources
        return True

    def samples(self, training: Training) -> AtEvaluations | None:
        """What is made of the model at each evaluation for people to look at, besides the answers to the user's prompts."""
        del training
        return None

    def metrics(self, evaluation: Sequences) -> Mapping[str, Direction]:
        """The metrics that ``score`` will give for this data, and which way is better; empty without a scorer.

        Raises ``SettingsError`` where something is missing that they take.
        """
        del evaluation
        return {}

    def score(self, evaluation: Sequences, scoring: Scoring) -> dict[str, float]:
        """The task's own metrics; all processes call this together. Raises ``Interrupted``."""
        del evaluation, scoring
        return {}
