"""Arguments and comparisons for tests that really train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXACT_FILES = ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "optimizer.json", "rng_state_0.json")


def arguments(model: Path, data: Path, base_dir: Path, **settings: Any) -> list[str]:
    """``train`` with settings that make a dozen steps on twelve records; ``None`` takes a default's flag out, True gives it bare."""
    chosen: dict[str, Any] = {
        "model_id": model,
        "dataset": data / "train.jsonl",
        "eval_dataset": data / "eval.jsonl",
        "base_dir": base_dir,
        "max_length": 128,
        "epochs": 2,
        "batch_size": 1,
        "gradient_accumulation_steps": 1,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "lora_rank": 4,
        "lora_dropout": 0.1,
        **settings,
    }
    words = ["train"]
    for name, value in chosen.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    return words


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without their timings."""
    lines = (run / "logs" / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.endswith("_s")} for line in lines]


def assert_same_end(one: Path, other: Path, files: tuple[str, ...] = EXACT_FILES) -> None:
    """Two runs ended in the same checkpoint byte by byte and logged the same rows."""
    ends = [run / "lora_weights" / "last" for run in (one, other)]
    assert ends[0].resolve().name == ends[1].resolve().name
    for name in files:
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), f"{name} differs"
    states = [json.loads((end / "trainer_state.json").read_text())["progress"] for end in ends]
    assert states[0] == states[1]
    assert rows(one) == rows(other)


def metadata(run: Path) -> dict[str, Any]:
    """The run's metadata.json."""
    content: dict[str, Any] = json.loads((run / "metadata.json").read_text())
    return content


def checkpoints(run: Path) -> list[str]:
    """Names of the committed checkpoints on disk."""
    return sorted(
        p.name for p in (run / "lora_weights").iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")
    )
