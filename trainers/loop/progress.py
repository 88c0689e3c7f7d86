"""Where a training run stands: everything that is not in the model, the optimizer or a generator."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pitstop.configs.errors import CheckpointError


@dataclass
class LossWindow:
    """A running loss sum since some point.

    Steps are added one by one in order, so the sum has the same last bit however often it was saved in between.
    """

    total: float = 0.0  # nats
    tokens: int = 0  # supervised tokens

    def add(self, loss_sum: float, tokens: int) -> None:
        """Add one optimizer step."""
        self.total += loss_sum
        self.tokens += tokens

    def mean(self) -> float:
        """Mean negative log-likelihood a supervised token, in nats."""
        return self.total / max(1, self.tokens)

    def clear(self) -> None:
        """Start a new window."""
        self.total = 0.0
        self.tokens = 0


@dataclass
class SourceProgress:
    """What was trained on of one of several data sets."""

    tokens: int = 0  # all of its tokens trained on
    unlogged: LossWindow = field(default_factory=LossWindow)  # since the last row of metrics.jsonl


@dataclass
class Progress:
    """Position in the data and what the hooks have gathered, as saved in every checkpoint."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # 0-based number of the epoch under way
    position: int = 0  # sequences of this epoch already trained on
    tokens: int = 0  # all tokens trained on
    learning_rate: float = 0.0  # of the last step
    grad_norm: float = 0.0  # of the last step, before clipping
    boundary_pending: bool = False  # the last step's evaluation was put off by a signal and is still to do
    unlogged: LossWindow = field(default_factory=LossWindow)  # since the last row of metrics.jsonl
    unscored: LossWindow = field(default_factory=LossWindow)  # since train_loss was last compared for "best"
    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    sources: list[SourceProgress] = field(default_factory=list)  # in their order; empty where there is only one

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; what is not finite (an overflow in float16, a loss that diverged) is spelt out."""
        values = asdict(self)
        if not self.sources:  # as every checkpoint had it before there could be several
            del values["sources"]
        return {name: _spelt(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Any) -> Progress:
        """The inverse of ``to_dict``. Raises ``CheckpointError`` for missing or unknown entries."""
        names = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or {*values, "sources"} != names:
            raise CheckpointError("The checkpoint's trainer_state.json does not hold the training position of this version.")
        try:
            read = {"sources": [], **{name: _read(value) for name, value in values.items()}}
            _check(read)
            windows = {name: LossWindow(**read[name]) for name in ("unlogged", "unscored")}
            sources = [SourceProgress(source["tokens"], LossWindow(**source["unlogged"])) for source in read["sources"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint's trainer_state.json holds an unreadable training position: {error}"
            ) from error
        return cls(**{**read, **windows, "sources": sources})


def _check(values: dict[str, Any]) -> None:
    """``TypeError`` or ``ValueError`` for anything that no training would have written."""
    sources = values["sources"]
    if not isinstance(sources, list) or any(source.keys() != {"tokens", "unlogged"} for source in sources):
        raise ValueError("each of 'sources' needs 'tokens' and 'unlogged' alone")
    windows = [values["unlogged"], values["unscored"], *(source["unlogged"] for source in sources)]
    if any(window.keys() != {"total", "tokens"} for window in windows):
        raise ValueError("a loss window needs 'total' and 'tokens' alone")
    _check_numbers(values, windows, sources)
    if type(values["boundary_pending"]) is not bool:
        raise TypeError(f"boundary_pending is {values['boundary_pending']!r}, not true or false")
    if type(values["learning_rate"]) not in (int, float) or not 0 <= values["learning_rate"] < math.inf:
        raise ValueError(f"learning_rate is {values['learning_rate']!r}, not a number of 0 or more")
    if (values["best_step"] is None) != (values["best_value"] is None) or (values["best_step"] or 0) > values["step"]:
        raise ValueError(
            f"best_step is {values['best_step']!r} with best_value {values['best_value']!r} at step {values['step']}"
        )


def _check_numbers(values: dict[str, Any], windows: list[dict[str, Any]], sources: list[dict[str, Any]]) -> None:
    counts = {name: values[name] for name in ("step", "epoch", "position", "tokens", "evaluations_without_improvement")}
    if values["best_step"] is not None:
        counts["best_step"] = values["best_step"]
    for name, count in [*counts.items(), *(("tokens", part["tokens"]) for part in [*windows, *sources])]:
        if type(count) is not int or not 0 <= count < 2**63:
            raise ValueError(f"{name} is {count!r}, not a count")
    numbers = [values["grad_norm"], *(window["total"] for window in windows)]  # infinite or no number where training diverged
    numbers += [values["best_value"]] if values["best_value"] is not None else []
    for number in numbers:
        if type(number) not in (int, float):
            raise TypeError(f"{number!r} is not a number")


def _spelt(value: Any) -> Any:
    """Non-finite floats as text, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: _spelt(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelt(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    """The inverse of ``_spelt``."""
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item) for item in value]
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        raise ValueError("text where a number is expected")
    return float(value) if isinstance(value, str) else value
