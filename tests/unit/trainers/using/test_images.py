"""Images from an opened checkpoint: of which classes, how many, and as one picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.configs.errors import DataError, SettingsError
from pitstop.trainers.using import images as module
from pitstop.trainers.using.images import grid_of, images_of, told_classes
from support.image_models import image_settings, small_config, small_network

NAMES = ["ash", "birch", "cedar", "elm"]
RECORD = {"class_names": NAMES, "classes": {"birch": 5, "elm": 2}}


def _opened(data: Any = None, *, classes: int = 4, missing: bool = False, model: Any = None) -> Any:
    @contextlib.contextmanager
    def in_use() -> Iterator[Any]:
        yield model

    metadata = Metadata({} if missing else {"data": data})
    run = SimpleNamespace(label="run_001", readable_metadata=lambda: metadata)
    accelerator = SimpleNamespace(autocast=contextlib.nullcontext)
    return SimpleNamespace(
        tokenizer=small_config(classes=classes),
        chosen=SimpleNamespace(run=run, settings=image_settings(diffusion__sampling_steps=3)),
        hardware=SimpleNamespace(device=torch.device("cpu")),
        engine=SimpleNamespace(accelerator=accelerator),
        in_use=in_use,
    )


def test_a_model_that_is_told_no_classes_makes_images_of_none() -> None:
    assert told_classes(_opened(RECORD, classes=0), ()) == ()
    with pytest.raises(SettingsError, match="the model of run_001 is not conditioned on classes") as caught:
        told_classes(_opened(RECORD, classes=0), ["birch"])
    assert "--conditional-classes" in str(caught.value.hint)


def test_unasked_all_classes_that_were_trained_on_are_made() -> None:
    assert told_classes(_opened(RECORD), ()) == ((1, "birch"), (3, "elm"))


def test_classes_are_asked_for_by_name_or_number_in_any_order() -> None:
    assert told_classes(_opened(RECORD), ["Elm", "0"]) == ((3, "elm"), (0, "ash"))
    with pytest.raises(DataError, match="There is no class oak"):
        told_classes(_opened(RECORD), ["oak"])


@pytest.mark.parametrize(
    "data",
    [None, "text", {}, {"class_names": "ash", "classes": {}}, {"class_names": [1, 2], "classes": {}}, {"class_names": NAMES}],
)
def test_without_a_proper_record_classes_are_numbers(data: Any) -> None:
    assert told_classes(_opened(data), ()) == ((0, "0"), (1, "1"), (2, "2"), (3, "3"))
    assert told_classes(_opened(data), ["2"]) == ((2, "2"),)


def test_lost_metadata_is_no_reason_to_make_nothing() -> None:
    assert told_classes(_opened(missing=True), ["1"]) == ((1, "1"),)


def test_a_class_that_the_model_was_never_told_of_is_refused() -> None:
    """A data set may have more names than the model has classes, where some were chosen to train on."""
    record = {"class_names": NAMES, "classes": {"ash": 5, "birch": 3}}
    opened = _opened(record, classes=2)
    assert told_classes(opened, ()) == ((0, "ash"), (1, "birch"))
    with pytest.raises(DataError, match="elm") as caught:
        told_classes(opened, ["elm"])
    assert "ash" in str(caught.value.hint) and "cedar" not in str(caught.value.hint)


def test_images_are_made_with_what_is_in_use_in_turn_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Sampler(module.Sampler):
        def made(self, count: int, *, seed: int, labels: Any = None) -> Any:
            made.append((self.model, self.steps, self.batch_size, count, seed, labels))

    monkeypatch.setattr(module, "Sampler", Sampler)
    images_of(_opened(model="model"), 5, ((1, "birch"), (3, "elm")), seed=2, steps=None, batch_size=8)
    images_of(_opened(model="model"), 2, (), seed=2, steps=7, batch_size=1)
    assert made == [("model", 3, 8, 5, 2, [1, 3, 1, 3, 1]), ("model", 7, 1, 2, 2, None)]


def test_the_same_seed_gives_the_same_images() -> None:
    opened = _opened(model=small_network(classes=4))
    told = ((1, "birch"), (3, "elm"))
    first, again = (images_of(opened, 3, told, seed=1, steps=None, batch_size=2) for _ in range(2))
    assert first.shape == (3, 3, 8, 8) and first.dtype == np.uint8 and np.array_equal(first, again)


def _saved(monkeypatch: pytest.MonkeyPatch, models: int, count: int, told: Any) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(module, "save_grid", lambda images, path, **how: kept.update(images=images, path=path, **how))
    shades = {f"model {number}": np.full((count, 3, 2, 2), number, dtype=np.uint8) for number in range(models)}
    grid_of(shades, told, Path("grid.png"))
    return kept


def test_the_models_stand_below_one_another_with_the_same_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _saved(monkeypatch, 2, 3, ((1, "birch"), (3, "elm")))
    assert found["images"][:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1] and found["columns"] == 3
    assert found["labels"] == ["birch", "elm", "birch"] * 2 and found["path"] == Path("grid.png")


def test_one_model_makes_a_square_and_rows_are_never_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _saved(monkeypatch, 1, 4, ())
    assert alone["columns"] is None and alone["labels"] is None
    assert _saved(monkeypatch, 2, 40, ())["columns"] == 16
