"""Arguments and comparisons for tests that really train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import read_rows
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import CheckpointStore
from pitstop.configs.errors import CheckpointError
from support.stores import ForgetfulStorage, leftovers

EXACT_FILES = ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "optimizer.json", "rng_state_0.json")
WHOLE_FILES = ("model.safetensors", "ema.safetensors", "config.json", *EXACT_FILES[2:])
"""Of a base training that keeps an average."""


def arguments(model: Path, data: Path, base_dir: Path, **settings: Any) -> list[str]:
    """``train`` with settings that make a dozen steps on twelve records; see ``train_with``."""
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
    return train_with(chosen)


def train_with(settings: Mapping[str, Any]) -> list[str]:
    """``train`` with flags: ``None`` takes a flag out, True gives it bare, a list repeats it."""
    words = ["train"]
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                words += [flag] if each is True else [flag, str(each)]
    return words


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without their timings."""
    lines = (run / "logs" / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.endswith("_s")} for line in lines]


def assert_same_end(one: Path, other: Path, files: tuple[str, ...] = EXACT_FILES) -> None:
    """Two runs ended in the same checkpoint byte by byte and logged the same rows."""
    ends = [layout.weights_directory(run) / "last" for run in (one, other)]
    assert ends[0].resolve().name == ends[1].resolve().name
    for name in files:
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), f"{name} differs"
    states = [json.loads((end / "trainer_state.json").read_text())["progress"] for end in ends]
    assert states[0] == states[1]
    assert rows(one) == rows(other)


def assert_same_checkpoints(one: Path, other: Path) -> None:
    """Every checkpoint that the first run kept is in the second byte by byte, but for times and places, and the rows are the same."""
    assert set(checkpoints(one)) <= set(checkpoints(other)), "some are missing"
    for name in checkpoints(one):
        mine, theirs = (layout.weights_directory(run) / name for run in (one, other))
        files = {path.name for path in mine.iterdir()}
        assert files == {path.name for path in theirs.iterdir()}, name
        for file in sorted(files - {layout.MANIFEST, layout.TRAINER_STATE}):
            assert (mine / file).read_bytes() == (theirs / file).read_bytes(), f"{file} of {name} differs"
        states = [json.loads((each / layout.TRAINER_STATE).read_text())["progress"] for each in (mine, theirs)]
        assert states[0] == states[1], name
    assert rows(one) == rows(other)


def metadata(run: Path) -> dict[str, Any]:
    """The run's metadata.json."""
    content: dict[str, Any] = json.loads((run / "metadata.json").read_text())
    return content


def checkpoints(run: Path) -> list[str]:
    """Names of the committed checkpoints on disk."""
    return sorted(
        p.name
        for p in layout.weights_directory(run).iterdir()
        if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")
    )


def broken_run(
    run: Path, acknowledged: list[int], under_way: set[int], keep: int, best: int | None = None, *, pointers: bool = True
) -> str | None:
    """What a run found after a crash or a power cut breaks of the promises; None when they hold. It is recovered by this.

    ``acknowledged`` are the steps that were told to be saved, ``best`` the best of them; a step of ``under_way`` may be there.
    ``pointers``: ``last`` and ``best`` lead somewhere even before a recovery repairs them.
    """
    store = CheckpointStore(layout.weights_directory(run), ForgetfulStorage())
    damaged = [entry.name for entry in store.verify_all() if entry.problem is not None]
    if damaged:
        return f"{damaged} have their final names and are damaged"
    newest = max(acknowledged, default=0)
    dangling = [which for which in layout.POINTERS if len(acknowledged) > 1 and store.pointer(which) not in store.names()]
    if dangling and pointers:
        return f"{dangling} point nowhere, and other tools do not repair them"
    report = store.recover(deep=True)
    step = report.valid.step if report.valid else 0
    if step not in {newest, *under_way}:
        return f"step {newest} was acknowledged, {step} recovered"
    steps = [info.step for info in store.list()]
    if len(steps) < min(keep, len(acknowledged)) or (best is not None and best not in steps):
        return f"only {steps} are left of {acknowledged}"
    if store.pointer("last") != (report.valid.name if report.valid else None):
        return f"last points at {store.pointer('last')}"
    if leftovers(store.directory):
        return f"{leftovers(store.directory)} are left"
    return _broken_records(run, steps)


def _broken_records(run: Path, steps: list[int]) -> str | None:
    logged = {row["step"] for row in read_rows(run / layout.LOGS / layout.METRICS)}
    missing = set(range(1, max(steps, default=0) + 1)) - logged
    if missing:
        return f"checkpoints {steps} are there and the rows of {sorted(missing)} are not"
    try:
        listed = [entry.step for entry in RunDirectory(run).metadata().checkpoints]
    except CheckpointError as error:
        return error.message
    if max(listed, default=0) > max(steps, default=0):
        return f"the metadata lists step {max(listed)}, which is not there"
    return None
