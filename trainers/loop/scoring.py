"""What an evaluation is scored with, and how a signal ends it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from pitstop.trainers.machine.memory_pieces import Pieces


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
