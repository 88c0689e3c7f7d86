"""What several runs have in common and what differs, as plain values: what ``compare`` prints, draws and gives as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pitstop.checkpointing.disk.dotted import at, flattened
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.disk.metrics_log import finite_number, points, read_rows
from pitstop.checkpointing.runs.metadata import Metadata, RecordedResume
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.portable_paths import portable_value
from pitstop.checkpointing.store.store import choose_best
from pitstop.configs.errors import CheckpointError, SettingsError
from pitstop.configs.secrets import is_secret_name, mask

SAME_KINDS = ("data", "eval_data", "base", "monitor")

_NOT_COMPARED = {"training.checkpoint.enabled", "training.checkpoint.base_dir", "training.checkpoint.run_number"}
_WORD = re.compile(r"[A-Za-z0-9]+")
_SMALLER_IS_BETTER = {"loss", "perplexity"}
_LARGER_IS_BETTER = {"accuracy", "f1"}
_MOST_STEPS = 1 << 53
_MOST_METRICS_NAMED = 12

# What decides which records are scored, and how they are cut up; of records held out also what they are held out from.
_OF_EVALUATION = ("data.eval", "data.eval_fraction", "data.max_length", "data.packing")
_OF_HELD_OUT = ("data.train", "data.skip_bad_rows", "training.seed")


def comparison(runs: Sequence[RunDirectory], *, metric: str = "loss", everything: bool = False) -> dict[str, Any]:
    """``runs`` side by side. ``metric`` is what the curves show, ``everything`` keeps the settings that are the same.

    All lists of values are in the order of ``runs``. NaN stands where a run logged a value that was not finite.

    Raises:
        SettingsError: no run has logged ``metric``.
        CheckpointError: a run's settings are damaged, or a newer Pitstop wrote it.
    """
    problems: list[str] = []
    labels = distinct_labels([run.path for run in runs], [run.label for run in runs])
    logs = [_rows(run, label, problems) for run, label in zip(runs, labels, strict=True)]
    settings = [run.settings() for run in runs]
    columns = zip(runs, labels, logs, settings, strict=True)
    facts = [_facts(run, label, rows, values, problems) for run, label, rows, values in columns]
    sameness = {kind: _same_for_all([fact["identity"][kind] for fact in facts]) for kind in SAME_KINDS}
    return {
        "runs": facts,
        "same": sameness,
        "settings": list(_settings(settings, everything=everything)),
        "metrics": [_metric(name, facts) for name in _metric_names(facts)],
        "curves": _curves(metric, labels, logs),
        "notes": _notes(facts, sameness),
        "problems": problems,
    }


def distinct_labels(paths: Sequence[Path], labels: Sequence[str]) -> list[str]:
    """``labels``, with as much of the path in front of each as it takes to tell them apart."""
    result = list(labels)
    for parts in range(1, max(len(path.parts) for path in paths)):
        repeated = {label for label in result if result.count(label) > 1}
        if not repeated:
            break
        for index, path in enumerate(paths):
            if result[index] in repeated:
                depth = len(Path(labels[index]).parts) + parts
                result[index] = Path(*path.parts[-depth:]).as_posix()
    return result


# One run


def _facts(
    run: RunDirectory, label: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    metadata = _metadata(run, label, problems)
    entries = run.store.scan()
    problems += [f"{label}: {entry.problem}" for entry in entries if entry.problem]
    infos = sorted((entry.info for entry in entries if entry.info is not None), key=lambda info: info.order)
    best = choose_best(infos, run.store.monitor, run.store.mode)
    is_changed = any(_changes_evaluation(entry, settings) for entry in metadata.resumes)
    return {
        "run": label,
        "run_number": run.number,
        "path": str(run.path),
        "name": metadata.name or run.path.name,
        "experiment_name": _text(metadata.experiment_name),
        "status": run.status(),
        "model": _text(metadata.model),
        "dataset": _text(metadata.dataset),
        "step": _step(metadata, infos, rows),
        "total_steps": _count(metadata.progress.total_steps),
        "tokens": _last(rows, "tokens"),
        "images": _last(rows, "images"),
        "monitor": {"metric": run.store.monitor, "mode": run.store.mode},
        "best_checkpoint": _best(best),
        "last_loss": _last(rows, "loss"),
        "tokens_per_s": _median(rows, "tokens_per_s"),
        "images_per_s": _median(rows, "images_per_s"),
        "identity": {
            "data": _newest(infos, "data") or _text(metadata.data.fingerprint),
            # What the record of the start says, unless a resume changed it.
            "eval_data": None if is_changed else _text(metadata.data.eval.fingerprint),
            "base": _newest(infos, "base") or _text(metadata.base_model.digest),
            "monitor": f"{run.store.monitor} ({run.store.mode})",
        },
    }


def _rows(run: RunDirectory, label: str, problems: list[str]) -> list[dict[str, Any]]:
    try:
        return list(read_rows(run.metrics_path))
    except OSError as error:
        problems.append(f"{label}: {run.metrics_path} cannot be read: {error.strerror or error}")
        return []


def _metadata(run: RunDirectory, label: str, problems: list[str]) -> Metadata:
    try:
        return run.metadata()
    except CheckpointError as error:
        problems.append(f"{label}: {error.with_hint}")
        return Metadata()


def _best(best: tuple[CheckpointInfo, str, str] | None) -> dict[str, Any] | None:
    if best is None:
        return None
    info, metric, mode = best
    return {
        "name": info.name,
        "step": info.step,
        "epoch": info.epoch,
        "metric": metric,
        "mode": mode,
        "value": info.metrics[metric],
        "metrics": dict(info.metrics),
    }


def _step(metadata: Metadata, infos: Sequence[CheckpointInfo], rows: Sequence[Mapping[str, Any]]) -> int | None:
    """What the run says, or what there is to show for it where it says nothing."""
    recorded = _count(metadata.progress.step)
    saved = infos[-1].step if infos else None
    logged = next((step for row in reversed(rows) if (step := _count(row.get("step"))) is not None), None)
    return next((step for step in (recorded, saved, logged) if step is not None), None)


def _newest(infos: Sequence[CheckpointInfo], kind: str) -> str | None:
    return infos[-1].manifest.fingerprints.get(kind) if infos else None


def _changes_evaluation(resume: RecordedResume, settings: Mapping[str, Any]) -> bool:
    changes = resume.changes
    held_out = not at(settings, "data.eval")
    watched = (*_OF_EVALUATION, *(_OF_HELD_OUT if held_out else ()))
    pairs = [changes[path] for path in watched if path in changes]
    # Another directory in which data of the same name lies is no change.
    return any(not isinstance(pair, list) or portable_value(pair[:1]) != portable_value(pair[-1:]) for pair in pairs)


def _last(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The newest value under ``key``; NaN where it was not finite, which JSON has as null."""
    row = next((row for row in reversed(rows) if key in row), None)
    if row is None:
        return None
    value = row[key]
    return finite_number(value) if value is not None else math.nan


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [value for row in rows if (value := finite_number(row.get(key))) is not None]
    return median(values) if values else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_STEPS else None


# Settings


def _settings(nested: Sequence[Mapping[str, Any]], *, everything: bool) -> Iterator[dict[str, Any]]:
    flat = [dict(flattened(settings)) for settings in nested]
    paths = {path for leaves in flat for path in leaves} - _NOT_COMPARED
    for path in sorted(paths, key=_grouped):
        if any(map(is_secret_name, path.split("."))):
            continue
        values = [leaves.get(path) for leaves in flat]
        # True == 1 in Python
        differs = any(value != values[0] or isinstance(value, bool) != isinstance(values[0], bool) for value in values)
        if differs or everything:
            yield {
                "setting": path,
                "group": _grouped(path)[0],
                "differs": differs,
                "values": [_masked(value) for value in values],
            }


def _grouped(path: str) -> tuple[str, str]:
    group, _, name = path.rpartition(".")
    return group, name


def _masked(value: Any) -> Any:
    if isinstance(value, list):
        return [_masked(item) for item in value] if all(not isinstance(item, (list, dict)) for item in value) else "(nested)"
    if isinstance(value, Mapping):
        return "(nested)"
    return mask(value) if isinstance(value, str) else value


# Metrics


def _metric_names(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The monitored ones first, then by name."""
    bests = [fact["best_checkpoint"] for fact in facts if fact["best_checkpoint"]]
    monitored = dict.fromkeys(best["metric"] for best in bests)
    return [*monitored, *sorted({name for best in bests for name in best["metrics"]} - monitored.keys())]


def _metric(name: str, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [((fact["best_checkpoint"] or {}).get("metrics") or {}).get(name) for fact in facts]
    mode = direction(name, [(fact["monitor"]["metric"], fact["monitor"]["mode"]) for fact in facts])
    scored_on = "data" if name.startswith("train_") else "eval_data"
    grounds = {fact["identity"][scored_on] for fact, value in zip(facts, values, strict=True) if value is not None}
    comparable = len(grounds) == 1 and None not in grounds
    return {"metric": name, "mode": mode, "values": values, "best": best_of(values, mode) if comparable else []}


def direction(name: str, monitored: Iterable[tuple[str, str]]) -> str | None:
    """``min`` or ``max``: the mode of the runs that monitor the metric, else by its name; None where nobody knows."""
    modes = {mode for metric, mode in monitored if metric == name}
    if modes:
        return modes.pop() if len(modes) == 1 else None
    words = {word.lower() for word in _WORD.findall(name)}
    smaller, larger = bool(words & _SMALLER_IS_BETTER), bool(words & _LARGER_IS_BETTER)
    return None if smaller == larger else "min" if smaller else "max"


def best_of(values: Sequence[float | None], mode: str | None) -> list[int]:
    """Where the best of ``values`` stand; nowhere when fewer than two are known."""
    numbers = [value for value in values if value is not None]
    if mode is None or len(numbers) < 2:
        return []
    best = min(numbers) if mode == "min" else max(numbers)
    return [index for index, value in enumerate(values) if value == best]


# Curves


def _curves(metric: str, labels: Sequence[str], logs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    validation = f"val_{metric}"
    series = [
        {"run": label, "points": points(rows, metric), "validation_points": points(rows, validation)}
        for label, rows in zip(labels, logs, strict=True)
    ]
    if metric != "loss" and not any(curve["points"] for curve in series):
        raise SettingsError(f"--metric {metric}: none of these runs has logged it.", hint=_logged(logs))
    return {"metric": metric, "validation_metric": validation, "series": series}


def _logged(logs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    names = sorted({key for rows in logs for row in rows for key, value in row.items() if finite_number(value) is not None})
    names = [name for name in names if name != "step"]
    rest = f" and {len(names) - _MOST_METRICS_NAMED} more" if len(names) > _MOST_METRICS_NAMED else ""
    return f"There are: {', '.join(names[:_MOST_METRICS_NAMED])}{rest}." if names else "They have logged nothing yet."


# The same or different


def _same_for_all(values: Sequence[str | None]) -> bool | None:
    """None where it is not known of some run, and the others do not differ."""
    identities = {value for value in values if value is not None}
    if len(identities) > 1:
        return False
    return None if None in values else True


def _notes(facts: Sequence[Mapping[str, Any]], sameness: Mapping[str, bool | None]) -> list[str]:
    notes = []
    without = [fact["run"] for fact in facts if fact["identity"]["eval_data"] is None]
    if sameness["eval_data"] is False:
        notes.append("The evaluation data differs, so losses and scores on it are not comparable.")
    elif without and len(without) < len(facts):
        notes.append(f"Which evaluation data scored {', '.join(without)} is not known, so scores on it may not be comparable.")
    if sameness["data"] is False:
        notes.append("The training data differs, so training losses are not comparable.")
    if sameness["monitor"] is False:
        metrics = ", ".join(f"{fact['run']} {fact['identity']['monitor']}" for fact in facts)
        notes.append(f"The monitored metric differs: {metrics}.")
    return notes
