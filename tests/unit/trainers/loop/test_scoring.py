"""What a scorer is given: batches that shrink, and a signal that is heeded where one process decides alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from pitstop.configs.errors import ResourceError
from pitstop.trainers.loop.scoring import Interrupted, Scoring


def _scoring(**options: Any) -> Scoring:
    return Scoring(None, None, torch.device("cpu"), nullcontext, **{"batch_size": 4, "max_new_tokens": 8, **options})


@pytest.mark.parametrize(("world_size", "signalled", "raises"), [(1, True, True), (1, False, False), (2, True, False)])
def test_a_signal_ends_an_evaluation_of_one_process(world_size: int, signalled: bool, raises: bool) -> None:
    scoring = _scoring(world_size=world_size, give_up=lambda: signalled)
    if raises:
        with pytest.raises(Interrupted):
            scoring.check()
    else:
        scoring.check()


def test_pieces_are_batches_that_shrink_until_one_example_does_not_fit() -> None:
    fits = 2

    def attempt(items: Sequence[int]) -> list[int]:
        if len(items) > fits:
            raise torch.OutOfMemoryError("no room")
        return list(items)

    assert list(_scoring().pieces().of(range(5), attempt)) == [[0, 1], [2, 3], [4]]
    fits = 0
    with pytest.raises(ResourceError) as caught:
        list(_scoring().pieces().of(range(5), attempt))
    assert "--eval-max-new-tokens" in str(caught.value.hint)


def test_one_process_gathers_what_it_has() -> None:
    assert _scoring().gather(b"mine") == [b"mine"]
