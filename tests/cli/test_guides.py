"""The Python in the guides runs as it stands there, one page in one namespace, in a child with small models."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.own_process import in_child
from support.tiny_model import make_tiny_model

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


def snippets(page: str) -> Iterator[tuple[int, str]]:
    """Each Python block of a page with the line on which it begins."""
    text = (GUIDES / page).read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)), match[1]


def run(page: str, names: dict[str, Any]) -> dict[str, Any]:
    for line, code in snippets(page):
        exec(compile("\n" * line + code, str(GUIDES / page), "exec"), names)
    return names


class Recorder(ModuleType):
    """A stand-in for a tracker that is not installed: notes what it is called with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, dict[str, Any], Any]] = []
        sys.modules[name] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **named: self.calls.append((name, named, arguments))


def python_api() -> dict[str, Any]:
    import torch

    from support.loops import Tokens, language_model

    model = language_model(make_tiny_model(Path("tiny")), adapter=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    steps = 0

    def train_one_epoch(*_: Any) -> float:
        nonlocal steps
        for row in range(2):
            optimizer.zero_grad()
            loss = model(**{key: value[None] for key, value in Tokens(4)[row].items()}).loss
            loss.backward()
            optimizer.step()
            steps += 1
        scheduler.step()
        return float(loss)

    wandb, mlflow, loggers = Recorder("wandb"), Recorder("mlflow"), Recorder("pytorch_lightning.loggers")
    names = run(
        "python-api.md",
        {"model": model, "optimizer": optimizer, "scheduler": scheduler, "train_one_epoch": train_one_epoch,
         "evaluate": lambda _: 1.0 / (steps + 1), "global_step": lambda: steps},
    )  # fmt: skip
    [merged] = Path("production_model").glob("*.safetensors")
    with names["MyCheckpointManager"]("checkpoints", "own") as own:
        own.save_lora_weights(model, 1)
    return {
        "start": names["start_epoch"],
        "number": names["number"],
        "best": names["best_info"]["name"],
        "all": [entry["name"] for entry in names["all_checkpoints"]],
        "runs": [run["run_number"] for run in names["runs"]],
        "step": names["resume_dict"]["step"],
        "loaded": names["checkpoint"]["epoch"],
        "merged": merged.name,
        "trackers": [wandb.calls[0][1]["name"], wandb.calls[0][1]["config"]["epochs"], mlflow.calls[1][2][0]["learning_rate"]],
        "logs": Path(loggers.calls[0][1]["save_dir"]).name,
    }


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    import peft  # noqa: F401 - once here, not in each child
    import pytorch_lightning  # noqa: F401
    import transformers.trainer  # noqa: F401


def test_the_python_of_the_api_guide_runs() -> None:
    ended = in_child(python_api)
    assert ended == {
        "start": 4, "number": None, "best": "epoch_003", "all": ["epoch_001", "epoch_002", "epoch_003"], "runs": [1], "step": 6, "loaded": 3,
        "merged": "model.safetensors", "trackers": ["run_002", 3, 1e-4], "logs": "logs",
    }  # fmt: skip


def callbacks() -> dict[str, Any]:
    import pytorch_lightning as pl
    from transformers import TrainingArguments

    from support.loops import Tokens, arguments, language_model, lightning_data, lightning_module

    real = pl.Trainer
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer = partial(real, **quiet)
    options = TrainingArguments(**arguments(num_train_epochs=1, eval_strategy="no", save_steps=2))
    names = run(
        "callbacks.md",
        {"model": language_model(make_tiny_model(Path("tiny")), adapter=True), "args": options, "train_dataset": Tokens(10),
         "module": lightning_module(), "data_module": lightning_data()},
    )  # fmt: skip
    from pitstop.checkpointing import list_all_runs

    return {
        "epochs": names["trainer"].current_epoch,
        "runs": [[run["experiment_name"], run["checkpoints_count"], run["status"]] for run in list_all_runs("checkpoints")],
    }


def test_the_python_of_the_callbacks_guide_runs() -> None:
    ended = in_child(callbacks)
    assert ended["epochs"] == 3
    assert [run[0] for run in ended["runs"]] == ["experiment", "experiment", "diffit_lora_trees"]
    assert ended["runs"][2] == ["diffit_lora_trees", 3, "completed"]


@pytest.mark.parametrize("page", sorted(path.name for path in GUIDES.glob("*.md")))
def test_every_guide_is_reachable_from_the_index(page: str) -> None:
    assert f"(guides/{page})" in (GUIDES.parent / "index.md").read_text(encoding="utf-8")
