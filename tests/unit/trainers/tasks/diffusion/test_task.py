"""The task diffusion: which images it reads, what it evaluates on, and what is measured and shown."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pitstop.configs.datasets import parse_sources
from pitstop.configs.errors import DataError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.images.data import ImageData, hold_out
from pitstop.trainers.data.reading import ReadOptions
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.tasks.diffusion import task as module
from pitstop.trainers.tasks.diffusion.grids import Grids
from pitstop.trainers.tasks.diffusion.task import DiffusionTask
from support.image_files import write_cifar, write_folder
from support.image_models import image_settings, numbered_images, small_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes with four images each to train on and two to validate on."""
    return write_folder(tmp_path / "pets", splits={"train": 4, "val": 2})


def _task(classes: int = 0, **flags: Any) -> DiffusionTask:
    return DiffusionTask(small_config(classes=classes), image_settings(**flags))


def _load(task: DiffusionTask, *specs: object, split: str = "train", skip: bool = False) -> ImageData:
    how = ReadOptions(max_length=1, packing=False, skip_bad_rows=skip, split=split)
    return task.load(parse_sources([str(spec) for spec in specs]), how, None)


def _training(run: Any = None) -> Any:
    return SimpleNamespace(
        context=SimpleNamespace(engine=None, settings=Settings(), progress=None, signals=None),
        reporter=None,
        tracking=SimpleNamespace(log_image=lambda *shown: None),
        run=run,
    )


def test_images_come_in_the_size_and_channels_of_the_network(folder: Path) -> None:
    data = _load(_task(), folder)
    assert data.images.images.shape == (12, 3, 8, 8) and data.images.class_names == ("cat", "dog", "frog")
    assert data.images.counts().tolist() == [4, 4, 4]
    grey = DiffusionTask(small_config(channels=1), image_settings())
    assert _load(grey, folder).images.images.shape == (12, 1, 8, 8)


def test_the_split_is_the_one_that_is_asked_for(folder: Path) -> None:
    assert len(_load(_task(), folder, split="validation")) == 6


@pytest.mark.parametrize("classes", [["frog", "cat"], ["2", "Cat"]])
def test_chosen_classes_are_all_that_is_read_and_keep_their_numbers(folder: Path, classes: list[str]) -> None:
    for split, count in (("train", 4), ("validation", 2)):
        data = _load(_task(data__classes=classes), folder, split=split)
        assert data.images.counts().tolist() == [count, 0, count]
    assert data.described()["class_names"] == ["cat", "dog", "frog"]


def test_a_class_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="There is no class cow"):
        _load(_task(data__classes=["cow"]), folder)


def test_more_classes_than_the_model_is_told_are_refused_and_how_many_it_takes_is_said(folder: Path) -> None:
    with pytest.raises(DataError, match="has 3 classes, and the model is conditioned on 2") as caught:
        _load(_task(2), folder)
    assert "--conditional-classes 3" in str(caught.value.hint)
    assert len(_load(_task(2, data__classes=["cat", "dog"]), folder)) == 8
    assert len(_load(_task(3), folder)) == len(_load(_task(4), folder)) == len(_load(_task(0), folder)) == 12


def test_several_data_sets_are_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="2 data sets are given") as caught:
        _load(_task(), folder, folder)
    assert "one folder" in str(caught.value.hint)


def test_a_bad_image_is_refused_or_left_out_and_counted(folder: Path) -> None:
    (folder / "train" / "cat" / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"000\.png"):
        _load(_task(), folder)
    data = _load(_task(), folder, skip=True)
    assert (len(data), data.counts.bad, data.counts.records) == (11, 1, 12)
    assert "000.png" in data.counts.bad_reasons[0]


def test_a_name_is_looked_for_under_the_data_root(tmp_path: Path) -> None:
    write_cifar(tmp_path / "mine", train=10, test=5)
    config = small_config(image_size=32)
    task = DiffusionTask(config, image_settings(data__root=str(tmp_path / "mine")))
    assert len(_load(task, "CIFAR10")) == 10


def test_a_share_of_each_class_is_held_out_by_the_training_s_seed(folder: Path) -> None:
    found = []
    for seed in range(6):
        task = _task(training__seed=seed)
        data = _load(task, folder)
        train, evaluation = task.hold_out(data, 0.5, ReadOptions(1, False))
        assert train.images.counts().tolist() == evaluation.images.counts().tolist() == [2, 2, 2]
        assert evaluation.fingerprint == hold_out(data, 0.5, seed=seed)[1].fingerprint
        found.append(evaluation.fingerprint)
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("splits", "flags", "itself"),
    [
        ({"train": 1, "val": 1}, {}, True),
        ({"train": 1, "val": 1}, {"data__eval_fraction": 0.2}, False),
        ({"train": 1, "val": 1}, {"data__eval": ["elsewhere"]}, False),
        ({"train": 1}, {}, False),
        (1, {}, False),
    ],
)
def test_the_data_set_s_own_half_is_evaluated_where_it_has_one_and_nothing_else_is_asked_for(
    tmp_path: Path, splits: Any, flags: dict[str, Any], itself: bool
) -> None:
    path = write_folder(tmp_path / "pets", splits=splits)
    for given in (str(path), f"{path}:0.5"):  # a weight beside nothing else weighs nothing
        assert _task(data__train=[given], **flags).splits_itself() is itself


def test_without_fid_there_is_no_metric_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(module, "check_available", never)
    monkeypatch.setattr(module, "fid", never)
    data = ImageData(numbered_images([0], ["a"]))
    assert _task().metrics(data) == {}
    assert _task().score(data, None) == {}  # type: ignore[arg-type]
    assert _task().always == {"val_loss": "min"} and _task().unit == "images"


def test_the_distance_is_a_metric_where_it_is_asked_for_and_less_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(module, "check_available", lambda: given.append("checked"))
    monkeypatch.setattr(module, "fid", lambda *what: given.extend(what) or 12.5)
    data, task = ImageData(numbered_images([0], ["a"])), _task(diffusion__fid_images=8)
    assert task.metrics(data) == {"fid": "min"} and given == ["checked"]
    scoring: Scoring = SimpleNamespace()  # type: ignore[assignment]
    assert task.score(data, scoring) == {"fid": 12.5}
    assert given[1:] == [data, scoring, task.config, task.settings]


def test_what_the_distance_takes_is_looked_for_before_anything_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise SettingsError("not here")

    monkeypatch.setattr(module, "check_available", missing)
    with pytest.raises(SettingsError, match="not here"):
        _task(diffusion__fid_images=8).metrics(ImageData(numbered_images([0], ["a"])))


def test_grids_go_into_the_logs_and_show_the_classes_that_were_trained_on(folder: Path, tmp_path: Path) -> None:
    task = _task(3, data__classes=["dog", "frog"])
    _load(task, folder)
    _load(task, folder, split="validation")
    grids = task.samples(_training(SimpleNamespace(logs_dir=tmp_path / "logs")))
    assert isinstance(grids, Grids) and grids.directory == tmp_path / "logs" / "samples"
    assert grids.classes == [(1, "dog"), (2, "frog")] and len(grids.listeners) == 1


def test_only_training_data_says_what_was_trained_on(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "dog")
    task = _task(3)
    _load(task, folder)
    _load(task, folder, split="validation")
    grids = task.samples(_training())
    assert grids is not None and [name for _, name in grids.classes] == ["cat", "dog", "frog"]
    assert grids.directory is None


def test_no_images_are_shown_where_none_are_wanted() -> None:
    assert _task(diffusion__sample_images=0).samples(_training()) is None


def test_an_empty_data_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = numbered_images([0], ["a"]).part(np.array([False]))
    monkeypatch.setattr(module, "read_images", lambda *given, **named: empty)
    with pytest.raises(DataError, match="there are no images"):
        _load(_task(1), "nothing")
