"""Where training stands: running losses, and the position as checkpoints have it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.checkpointing.state.state import to_json
from pitstop.configs.errors import CheckpointError
from pitstop.trainers.loop.progress import LossWindow, Progress, SourceProgress

NAN = float("nan")
FLOATS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**60)


def _of_two_sources() -> dict[str, Any]:
    return Progress(sources=[SourceProgress(5, LossWindow(NAN, 2)), SourceProgress()]).to_dict()


@given(
    steps=st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 10_000)), max_size=30),
    cuts=st.sets(st.integers(0, 30)),
)
def test_a_loss_window_is_the_same_however_often_it_was_saved(steps: list[tuple[float, int]], cuts: set[int]) -> None:
    straight, saved = LossWindow(), Progress()
    for number, (loss, tokens) in enumerate(steps):
        straight.add(loss, tokens)
        saved.unlogged.add(loss, tokens)
        if number in cuts:
            saved = Progress.from_dict(json.loads(to_json(saved.to_dict())))
    assert saved.unlogged == straight
    assert saved.unlogged.mean() == straight.mean()


def test_an_empty_window_has_mean_zero() -> None:
    assert LossWindow().mean() == 0.0


@given(
    st.builds(
        lambda best, **rest: Progress(**rest, best_value=best and best[0], best_step=best and best[1]),
        step=COUNTS.map(lambda steps: steps + 1000),
        tokens=COUNTS,
        grad_norm=FLOATS,
        boundary_pending=st.booleans(),
        unlogged=st.builds(LossWindow, total=FLOATS, tokens=COUNTS),
        sources=st.lists(
            st.builds(SourceProgress, tokens=COUNTS, unlogged=st.builds(LossWindow, total=FLOATS, tokens=COUNTS)), max_size=3
        ),
        best=st.none() | st.tuples(FLOATS, st.integers(0, 1000)),
    )
)
def test_progress_comes_back_from_json_as_it_was(progress: Progress) -> None:
    assert Progress.from_dict(json.loads(to_json(progress.to_dict()))) == progress


def test_a_diverged_training_can_be_saved() -> None:
    progress = Progress(grad_norm=NAN, unlogged=LossWindow(NAN, 3), unscored=LossWindow(math.inf, 3))
    back = Progress.from_dict(json.loads(to_json(progress.to_dict())))
    assert math.isnan(back.grad_norm) and math.isnan(back.unlogged.total) and back.unscored == LossWindow(math.inf, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("step"),
        lambda d: d.update(more=1),
        lambda d: d.update(unlogged={"total": 1.0}),
        lambda d: d.update(unlogged=3),
        lambda d: d.update(unscored={"total": 1.0, "tokens": 1, "more": 2}),
        lambda d: d.update(grad_norm="much"),
        lambda d: d.update(grad_norm="1e3"),
        lambda d: d.update(step=-1),
        lambda d: d.update(step=True),
        lambda d: d.update(step=1.0),
        lambda d: d.update(position=2**63),
        lambda d: d.update(learning_rate="nan"),
        lambda d: d.update(learning_rate="inf"),
        lambda d: d.update(learning_rate=-1.0),
        lambda d: d.update(boundary_pending=1),
        lambda d: d.update(best_value=1.0),
        lambda d: d.update(best_value=1.0, best_step=1),
        lambda d: d.update(unlogged={"total": 1.0, "tokens": -1}),
        lambda d: d.update(unlogged={"total": None, "tokens": 1}),
    ],
)
def test_a_position_of_another_shape_is_refused(change: Any) -> None:
    values = Progress().to_dict()
    change(values)
    with pytest.raises(CheckpointError):
        Progress.from_dict(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(sources=None),
        lambda d: d.update(sources={}),
        lambda d: d.update(sources=3),
        lambda d: d.update(sources=[3]),
        lambda d: d.update(sources=["nan"]),
        lambda d: d.update(sources=[[]]),
        lambda d: d["sources"][0].pop("tokens"),
        lambda d: d["sources"][0].update(more=1),
        lambda d: d["sources"][1].update(tokens=-1),
        lambda d: d["sources"][1].update(tokens=1.0),
        lambda d: d["sources"][1].update(tokens=True),
        lambda d: d["sources"][1].update(tokens=2**63),
        lambda d: d["sources"][1].update(unlogged=None),
        lambda d: d["sources"][1]["unlogged"].update(total="much"),
        lambda d: d["sources"][1]["unlogged"].update(total=None),
        lambda d: d["sources"][1]["unlogged"].update(tokens=0.5),
        lambda d: d["sources"][1]["unlogged"].pop("total"),
    ],
)
def test_a_sources_progress_of_another_shape_is_refused(change: Any) -> None:
    values = _of_two_sources()
    Progress.from_dict(json.loads(to_json(values)))
    change(values)
    with pytest.raises(CheckpointError):
        Progress.from_dict(values)


def test_a_run_from_one_source_is_saved_as_it_always_was() -> None:
    assert "sources" not in Progress().to_dict() and Progress.from_dict(Progress().to_dict()).sources == []
    assert [source["tokens"] for source in _of_two_sources()["sources"]] == [5, 0]


@pytest.mark.parametrize("values", [None, [], "progress"])
def test_what_is_no_position_is_refused(values: Any) -> None:
    with pytest.raises(CheckpointError):
        Progress.from_dict(values)
