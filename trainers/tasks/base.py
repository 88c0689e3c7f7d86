"""What a training task is: how its data is read, and how what the model makes of it is scored.

The loop, checkpoints and resuming are the same for every task. A task is one module with a subclass of ``Task`` (of
``text.TextTask``, where records become tokens) and one line in ``registry.TASKS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pitstop.configs.datasets import DataSource
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.cache import DataCache
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.data.reading import ReadOptions

if TYPE_CHECKING:  # they know torch, which reading data does without
    from pitstop.checkpointing.runs.run_directory import RunDirectory
    from pitstop.trainers.loop.context import TrainingContext
    from pitstop.trainers.loop.sample_hook import SampleHook
    from pitstop.trainers.loop.scoring import Scoring
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.tracking.tracking import Tracking

Direction = Literal["min", "max"]


@dataclass(frozen=True)
class Training:
    """A training under way, as far as a task may look at it. ``run`` is there in the first process alone."""

    context: TrainingContext
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
    def load(self, sources: Sequence[DataSource], options: ReadOptions, cache: DataCache | None) -> Sequences:
        """Read data. Raises ``DataError`` for what cannot be read and where nothing usable is left, and ``SettingsError``."""

    @abstractmethod
    def hold_out(self, train: Sequences, fraction: float, options: ReadOptions) -> tuple[Sequences, Sequences]:
        """Split off a share for evaluation, a function of the seed: (training, evaluation). ``DataError`` where there is too little."""

    def splits_itself(self) -> bool:
        """Whether the evaluation data comes out of the training data, by the task's own rule."""
        return False

    def has_test_split(self, sources: Sequence[DataSource]) -> bool:
        """Whether data has a test split, as far as can be told without reading it."""
        del sources
        return True

    def samples(self, training: Training) -> SampleHook | None:
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
