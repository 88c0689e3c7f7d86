"""``pitstop generate`` of a run that makes images: what is refused, made and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pitstop.cli.commands import generate as command
from pitstop.configs.errors import RunError
from pitstop.configs.schema import TrainingSettings
from pitstop.trainers.using import images
from pitstop.trainers.using import opened as opening
from support.cli import Cli

LABEL = "base_training/run_001"


class Opened:
    """An opened checkpoint whose images are all grey, those of the base black."""

    def __init__(self, *, adapter: bool = True) -> None:
        self.adapter, self.label, self.current, self.asked = adapter, f"{LABEL}@epoch_002", "", []  # type: ignore[var-annotated]

    in_turn = opening.OpenModel.in_turn

    def use(self, label: str) -> None:
        if label == opening.BASE and not self.adapter:
            raise RunError("there is no base")
        self.current = label


Start = Callable[..., Opened]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Puts an opened checkpoint of such a run, or of a text run, in place."""

    def start(task: str = "diffusion", *, adapter: bool = True, told: Any = ()) -> Opened:
        opened = Opened(adapter=adapter)
        (tmp_path / "run_001").mkdir()
        plan = SimpleNamespace(
            run=SimpleNamespace(label=LABEL, path=tmp_path / "run_001"),
            info=SimpleNamespace(name="epoch_002", step=40),
            settings=SimpleNamespace(training=TrainingSettings(task=task)),
        )

        def images_of(opened: Opened, count: int, told: Any, **how: Any) -> Any:
            opened.asked.append((opened.current, count, how))
            return np.full((count, 3, 4, 4), 0 if opened.current == opening.BASE else 128, dtype=np.uint8)

        def told_classes(opened: Opened, wanted: Any) -> Any:
            opened.asked.append(wanted)
            return told

        monkeypatch.setattr(command, "choose", lambda *given: plan)
        monkeypatch.setattr(opening, "open_model", lambda plan, reporter: opened)
        monkeypatch.setattr(images, "images_of", images_of)
        monkeypatch.setattr(images, "told_classes", told_classes)
        return opened

    return start


def test_sixteen_images_in_a_file_named_after_run_and_checkpoint(run: Start, pitstop: Cli) -> None:
    opened = run()
    result = pitstop("generate", 1)
    assert result.code == 0
    assert result.stdout == f"16 images of {LABEL}@epoch_002 in base_training-run_001-epoch_002.png\n"
    assert opened.asked == [(), (opened.label, 16, {"seed": 0, "steps": None, "batch_size": 8})]
    with Image.open("base_training-run_001-epoch_002.png") as picture:
        assert picture.size == (4 * 4 + 3 * 2,) * 2 and picture.getpixel((0, 0)) == (128, 128, 128)


def test_options_reach_the_sampler_and_json_tells_all(run: Start, pitstop: Cli, tmp_path: Path) -> None:
    opened = run(told=((1, "birch"), (3, "elm")))
    given = ["--images", 3, "--seed", 5, "--sampling-steps", 4, "--batch-size", 2, "--class", "birch", "--class", "3"]
    result = pitstop("generate", 1, *given, "--output", tmp_path / "x.PNG", "--base", "--json")
    assert result.code == 0 and result.json() == {
        "run": LABEL,
        "checkpoint": "epoch_002",
        "step": 40,
        "images": 3,
        "models": [opened.label, "base"],
        "classes": ["birch", "elm"],
        "seed": 5,
        "output": str(tmp_path / "x.PNG"),
    }
    how = {"seed": 5, "steps": 4, "batch_size": 2}
    assert opened.asked == [("birch", "3"), (opened.label, 3, how), ("base", 3, how)]


def test_the_base_s_images_stand_below(run: Start, pitstop: Cli) -> None:
    run()
    result = pitstop("generate", 1, "--images", 3, "--base", "--output", "both.png")
    assert result.stdout == f"3 images of {LABEL}@epoch_002 and base in both.png\n"
    with Image.open("both.png") as picture:
        assert picture.size == (3 * 4 + 2 * 2, 2 * 4 + 2)
        assert [picture.getpixel((0, y)) for y in (0, 9)] == [(128, 128, 128), (0, 0, 0)]


def test_a_seed_alone_is_enough_to_make_other_images(run: Start, pitstop: Cli) -> None:
    opened = run()
    assert pitstop("generate", 1, "--seed", 3).code == 0
    assert opened.asked[1][2]["seed"] == 3


def test_only_png_is_written(run: Start, pitstop: Cli) -> None:
    opened = run()
    result = pitstop("generate", 1, "--output", "x.jpg")
    assert result.code == 2 and "written as PNG" in result.stderr and "ends in .png" in result.stderr
    assert not opened.asked


def test_a_file_that_is_there_is_replaced_only_with_force(run: Start, pitstop: Cli) -> None:
    opened = run()
    Path("x.png").write_text("mine")
    result = pitstop("generate", 1, "--output", "x.png")
    assert result.code == 2 and "--force" in result.stderr
    assert Path("x.png").read_text() == "mine" and not opened.asked
    assert pitstop("generate", 1, "--output", "x.png", "--force").code == 0
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_written_into_the_run(run: Start, pitstop: Cli, tmp_path: Path) -> None:
    run()
    result = pitstop("generate", 1, "--output", tmp_path / "run_001" / "x.png")
    assert result.code == 2 and "lies in the run" in result.stderr


def test_a_base_training_has_no_base_to_compare_with(run: Start, pitstop: Cli) -> None:
    opened = run(adapter=False)
    assert pitstop("generate", 1, "--base").code == 2
    assert not [asked for asked in opened.asked if asked], "nothing was made before that was said"
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [("--prompt", "a tree"), ("--prompts", "p.txt"), ("--temperature", 0.7), ("--top-p", 0.9), ("--multi-turn", None)],
)
def test_what_is_for_answers_is_refused(run: Start, pitstop: Cli, option: str, value: Any) -> None:
    run()
    result = pitstop("generate", 1, option, *([] if value is None else [value]))
    assert result.code == 2 and f"{option}: {LABEL} is of the task diffusion, for which it means nothing." in result.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--images", 4), ("--class", "cat"), ("--sampling-steps", 5), ("--output", "x.png"), ("--force", None)],
)
def test_what_is_for_images_is_refused_of_a_text_run(run: Start, pitstop: Cli, option: str, value: Any) -> None:
    run("sft")
    result = pitstop("generate", 1, option, *([] if value is None else [value]), "--prompt", "x")
    assert result.code == 2 and f"{option}: {LABEL} is of the task sft, for which it means nothing." in result.stderr


def test_of_a_text_run_a_seed_still_needs_sampling(run: Start, pitstop: Cli) -> None:
    run("sft")
    result = pitstop("generate", 1, "--prompt", "x", "--seed", 3)
    assert result.code == 2 and "--seed means nothing without sampling" in result.stderr
