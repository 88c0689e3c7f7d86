"""What ``CheckpointManager`` is given, checked and brought into the form in which it is kept, and what it tells of its run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import torch

from pitstop.checkpointing.disk import layout, manifest
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import SettingsError
from pitstop.configs.shown import human_size


def check_arguments(experiment_name: Any, run_number: Any, monitor: Any, mode: Any) -> None:
    for argument, value in (("experiment_name", experiment_name), ("monitor", monitor)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise SettingsError(f"{argument} is {value!r}; it must be text that is not empty")
    if run_number is not None and (type(run_number) is not int or not 1 <= run_number < 10**9):
        raise SettingsError(f"run_number is {run_number!r}; runs are numbered from 1")
    if mode not in (None, "min", "max"):
        raise SettingsError(f"mode is {mode!r}; it is 'min' where smaller is better, else 'max'")


def name(experiment_name: str | None) -> str:
    from pitstop.naming.names import clean, shorten  # it imports the schema, which reading a run does without

    return shorten(clean(f"{experiment_name or 'run'}-{datetime.now().astimezone():%Y%m%d-%H%M%S}")).text


def epoch_name(epoch: float) -> str:
    if isinstance(epoch, bool) or not isinstance(epoch, (int, float)) or epoch != int(epoch) or not 1 <= epoch < 10**9:
        raise SettingsError(
            f"epoch is {epoch!r}; epochs are counted from 1", hint="within an epoch give name='checkpoint-100' and step=100"
        )
    return layout.epoch_name(int(epoch))


def numbers(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    values: dict[str, Any] = {}
    for name, value in metrics.items():
        number = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if isinstance(number, (bool, str, Sequence, Mapping, torch.Tensor)):
            raise SettingsError(f"the metric {name} is {type(value).__name__} {str(value)[:60]}; metrics are single numbers")
        values[name] = number
    try:
        return manifest.finite_metrics(values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"a metric is not a number: {error}") from error


def single_or_all(states: list[Any] | None, single: bool) -> Any:
    return states[0] if states is not None and single and len(states) == 1 else states


def text(run: RunDirectory) -> str:
    """The run in a few lines."""
    metadata = run.metadata()
    infos = run.store.list()
    best = run.best_entry(infos)
    lines = [
        f"Run {run.number}: {metadata.name} ({run.status()})",
        f"  experiment   {metadata.experiment_name or '-'}",
        f"  created      {metadata.created_at}",
        f"  progress     step {metadata.progress.step or 0}, epoch {metadata.progress.epoch or 0:g}",
        f"  checkpoints  {len(infos)} ({human_size(sum(info.size for info in infos))}) in {run.store.directory}",
    ]
    for info in infos:
        mark = "  ← best" if best is not None and info.name == best.name else ""
        metrics = " ".join(
            f"{name}={'nan' if value is None else format(value, '.4g')}" for name, value in sorted(info.metrics.items())
        )
        lines.append(f"    {info.name}  step {info.step}  {metrics}{mark}".rstrip())
    return "\n".join(lines)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` as JSON gives it back. ``SettingsError`` names what JSON cannot hold."""
    try:
        copied = json.loads(json.dumps(config, allow_nan=False, default=_as_text))
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"training_config or lora_config cannot be written as JSON: {error}",
            hint="give numbers, text, lists and dictionaries",
        ) from error
    return dict(copied)


def _as_text(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"a {type(value).__name__} ({str(value)[:60]})")
