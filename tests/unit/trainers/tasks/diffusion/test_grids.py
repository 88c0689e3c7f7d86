"""The grid of an evaluation: where it lies, who is shown it, and what a full disk does to it."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pitstop.configs.errors import ResourceError
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.loop.scoring import Interrupted
from pitstop.trainers.machine.signals import SignalFlag
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.diffusion import grids as module
from pitstop.trainers.tasks.diffusion.grids import Grids
from support.displays import Lines
from support.image_models import image_settings, small_network

TREES = [(4, "oak"), (7, "pine")]


@pytest.fixture
def display() -> Lines:
    return Lines()


def _grids(display: Lines, directory: Path | None, *, listeners: Any = (), classes: int = 0, images: int = 5) -> Grids:
    network = small_network(classes=classes)
    engine: Any = SimpleNamespace(
        model=network, device=torch.device("cpu"), accelerator=SimpleNamespace(autocast=contextlib.nullcontext)
    )
    settings = image_settings(diffusion__sample_images=images, diffusion__sampling_steps=2, training__seed=9)
    context = TrainingContext(engine, settings, Progress(), SignalFlag())
    return Grids(context, network.config, TREES, Reporter(display), directory, listeners)


def _make(grids: Grids, step: int) -> None:
    grids.make(step, lambda: None)


def _given_up() -> None:
    raise Interrupted


def test_a_grid_is_named_by_its_step_and_listeners_get_its_pixels(display: Lines, tmp_path: Path) -> None:
    seen: list[Any] = []
    directory = tmp_path / "logs" / "samples"
    _make(_grids(display, directory, listeners=[lambda *shown: seen.append(shown)] * 2), 12)
    assert [path.name for path in directory.iterdir()] == ["step_000012.png"]
    with Image.open(directory / "step_000012.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (2 * 8 + 2, 3 * 8 + 2 * 2, 3)  # five images in three columns, two pixels apart
    assert [(name, step) for name, _, step in seen] == [("samples", 12)] * 2
    assert all(shown.dtype == np.uint8 and np.array_equal(shown, pixels) for _, shown, _ in seen)
    assert display.lines == ["step 12: 5 images in logs/samples/step_000012.png"] and not display.warnings
    assert directory.stat().st_mode & 0o777 == 0o700


def test_the_same_places_are_shown_each_time_and_training_s_generators_are_left_alone(display: Lines, tmp_path: Path) -> None:
    grids = _grids(display, tmp_path)
    numpy_before, before = np.random.get_state()[1].copy(), torch.get_rng_state()
    _make(grids, 1)
    torch.rand(3)
    torch.set_rng_state(before)
    _make(grids, 2)
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(np.random.get_state()[1], numpy_before)
    assert (tmp_path / "step_000001.png").read_bytes() == (tmp_path / "step_000002.png").read_bytes()


def test_nothing_is_made_without_a_directory(display: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Sampler", None)
    grids = _grids(display, None)
    _make(grids, 1)
    assert not display.lines


def test_a_disk_that_refuses_is_told_once_until_it_takes_a_grid_again(
    display: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    grids, real = _grids(display, tmp_path, listeners=[lambda name, pixels, step: seen.append(step)]), module.save_grid

    def full(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step, save in enumerate((full, full, real, full), start=1):
        monkeypatch.setattr(module, "save_grid", save)
        _make(grids, step)
        assert len(display.warnings) == (1, 1, 1, 2)[step - 1]
    assert "step_000001.png cannot be written (No space left on device); training goes on" in display.warnings[0]
    assert seen == [3] and len(display.lines) == 1


def test_a_directory_that_cannot_be_made_is_told_too(display: Lines, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    _make(_grids(display, tmp_path / "logs" / "samples"), 1)
    assert len(display.warnings) == 1


@pytest.mark.parametrize("classes", [0, 8])
def test_classes_are_gone_through_where_the_network_is_told_them(
    display: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    captions: list[Any] = []
    monkeypatch.setattr(module, "save_grid", lambda images, path, labels: captions.append(labels))
    grids = _grids(display, tmp_path, classes=classes)
    given: list[Any] = []
    real = grids.engine.model.forward
    monkeypatch.setattr(grids.engine.model, "forward", lambda x, c, labels: given.append(labels) or real(x, c, labels))
    _make(grids, 1)
    assert captions == [["oak", "pine", "oak", "pine", "oak"] if classes else None]
    assert {None if labels is None else tuple(labels.tolist()) for labels in given} == ({(4, 7, 4, 7, 4)} if classes else {None})


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_out_of_memory_says_how_to_make_fewer(
    display: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: Any, *given: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(module.Sampler, "made", fail)
    with pytest.raises(ResourceError, match="making images at step 3") as caught:
        _make(_grids(display, tmp_path), 3)
    assert "--sample-images" in str(caught.value.hint)


def test_another_error_is_not_taken_for_it(display: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, *given: Any, **named: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(module.Sampler, "made", fail)
    with pytest.raises(RuntimeError, match="do not fit"):
        _make(_grids(display, tmp_path), 3)


def test_a_signal_leaves_no_file(display: Lines, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        _grids(display, tmp_path / "samples").make(3, _given_up)
    assert not (tmp_path / "samples").exists()
