"""A run as text: what matters first, then its checkpoints and resumes, and its settings last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pitstop.cli.reports.settings_view import print_changed_settings, print_settings, setting_text, stored_rows
from pitstop.cli.terminal.output import Column, heading, paint, print_facts, say, table, warn
from pitstop.cli.terminal.tables import print_table
from pitstop.configs.notices import recorded_texts
from pitstop.configs.shown import human_duration, human_size

_NOTHING = "-"
_SHOWN_METRICS = 4


def print_run(content: Mapping[str, Any], *, all_settings: bool) -> None:
    """Print ``content``, as ``report`` gives it, on stdout."""
    say(f"{paint(content['run'], 'bold')}  {content['name']}  {content['status']}")
    print_facts(_facts(content), width=12)
    _print_notices(content["notices"])
    _print_checkpoints(content)
    _print_set_aside(content)
    _print_resumes(content)
    if "checkpoint" in content:
        _print_contents(content["checkpoint"])
    if content["settings"]:
        heading("Settings at its start")
        rows = stored_rows(content["settings"], content["sources"])
        if all_settings:
            print_settings(rows)
        else:
            print_changed_settings(rows, f"pitstop show {content['run']}")


def _facts(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    usage, owner = content["usage"] or {}, content["in_use_by"]
    texts = {
        "progress": _progress_text(content["progress"]),
        "best": _best_text(content["best_checkpoint"]),
        "peak memory": human_size(peak) if (peak := usage.get("peak_memory_bytes")) is not None else None,
        "time": human_duration(seconds) if (seconds := usage.get("training_s")) is not None else None,
        "ended": content["status_reason"],
        "in use by": f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {_time_text(owner.get('since'))}"
        if owner
        else "",
        "disk": _disk_text(content["disk"]),
        "base model": _base_text(content["disk"]["base_model"]),
        "created": _time_text(content["created_at"]),
        "changed": _time_text(content["updated_at"]),
        "hub": _hub_text(content["hub"]),
        "task": " ".join(str(content[key]) for key in ("task", "method") if content[key]),
        "model": content["model"],
        "data": content["dataset"],
        "experiment": content["experiment_name"],
        "path": content["path"],
    }
    return ((label, str(text)) for label, text in texts.items() if text)


def _progress_text(progress: Any) -> str:
    if not isinstance(progress, dict) or progress.get("step") is None:
        return ""
    steps = f"step {progress['step']}" + (f" of {progress['total_steps']}" if progress.get("total_steps") else "")
    epochs = f" of {progress['total_epochs']:g}" if progress.get("total_epochs") else ""
    return f"{steps}, epoch {progress.get('epoch') or 0:.4g}{epochs}"


def _best_text(best: Mapping[str, Any] | None) -> str:
    if not best or not isinstance(best.get("name"), str):
        return ""
    value = best.get("value")
    score = f"  {best.get('metric')} {value:.4g}" if type(value) in (int, float) else ""
    return f"{best['name']}{score}"


def _disk_text(disk: Mapping[str, Any]) -> str:
    aside = f", set aside {human_size(disk['set_aside_bytes'])}" if disk["set_aside_bytes"] else ""
    parts = f"checkpoints {human_size(disk['checkpoints_bytes'])}, logs {human_size(disk['logs_bytes'])}{aside}"
    return f"{human_size(disk['own_bytes'])} ({parts})"


def _base_text(base: Mapping[str, Any] | None) -> str:
    if base is None:
        return ""
    runs = base["shared_by_runs"]
    shared = f", one copy for {runs} runs: {human_size(base['saved_bytes'])} saved" if runs and runs > 1 else ""
    return f"{human_size(base['size_bytes'])}{shared} ({base['path']})"


def _hub_text(hub: Mapping[str, Any] | None) -> str:
    """``user/name, in step``, or what is missing there and why."""
    if hub is None:
        return ""
    parts = [hub["repo"] or "repository not made yet"]
    if hub["problem"]:
        parts.append(f"failed: {hub['problem']}")
    if hub["waiting"]:
        parts.append(f"{hub['behind']} behind: {', '.join(hub['waiting'])}")
    return ", ".join(parts if len(parts) > 1 else [*parts, hub["state"]])


def _print_notices(notices: Any) -> None:
    if notices:
        heading("Decided when it started")
        _say_notices(notices, indent=2)


def _say_notices(notices: Any, *, indent: int) -> None:
    for text in recorded_texts(notices):
        say(f"{' ' * indent}{text}")


def _print_checkpoints(content: Mapping[str, Any]) -> None:
    checkpoints = content["checkpoints"]
    heading("Checkpoints" if checkpoints else "No checkpoints yet")
    if not checkpoints:
        return
    monitored = (content["best_checkpoint"] or {}).get("metric")
    columns = [
        Column("Name"),
        Column("Step", "right"),
        Column("Epoch", "right"),
        Column("Metrics"),
        Column("Size", "right"),
        Column("Saved"),
        Column("State"),
        Column("Kept as"),
    ]
    rows = [_checkpoint_row(checkpoint, monitored) for checkpoint in checkpoints]
    print_table(columns, rows, shorten="Metrics", drop=("Saved", "Epoch", "Size"), keep_start=True)
    for checkpoint in checkpoints:
        if checkpoint["problem"]:
            warn(checkpoint["problem"])


def _checkpoint_row(checkpoint: Mapping[str, Any], monitored: str | None) -> list[str]:
    metrics = checkpoint["metrics"]
    names = sorted(metrics, key=lambda name: (name != monitored, name))[:_SHOWN_METRICS]
    return [
        checkpoint["name"],
        _NOTHING if checkpoint["step"] is None else str(checkpoint["step"]),
        _NOTHING if checkpoint["epoch"] is None else f"{checkpoint['epoch']:.4g}",
        " ".join(f"{name}={'nan' if metrics[name] is None else f'{metrics[name]:.4g}'}" for name in names) or _NOTHING,
        _NOTHING if checkpoint["size_bytes"] is None else human_size(checkpoint["size_bytes"]),
        _time_text(checkpoint["saved_at"]) or _NOTHING,
        checkpoint["state"],
        ", ".join(checkpoint["pins"]),
    ]


def _print_set_aside(content: Mapping[str, Any]) -> None:
    if content["set_aside"]:
        heading("Set aside (only `pitstop prune --set-aside` deletes it)")
    for item in content["set_aside"]:
        reason = f": {item['reason']}" if item["reason"] else ""
        say(f"  {item['where']}/{item['name']}  {human_size(item['size_bytes'])}{reason}")


def _print_resumes(content: Mapping[str, Any]) -> None:
    resumes = [entry for entry in content["resumes"] or [] if isinstance(entry, dict)]
    if resumes:
        heading("Resumed")
    for entry in resumes:
        changes = entry.get("changes") or {}
        text = ", ".join(f"{path}: {setting_text(pair[0])} → {setting_text(pair[-1])}" for path, pair in changes.items())
        checkpoint = f"from {entry.get('checkpoint')} (step {entry.get('step')})"
        say(f"  {_time_text(entry.get('at'))}  {checkpoint}: {text or 'nothing changed'}")
        _say_notices(entry.get("notices"), indent=4)


def _print_contents(checkpoint: Mapping[str, Any]) -> None:
    heading(f"{checkpoint['name']} in {checkpoint['path']}")
    rows = [[name, human_size(record["size_bytes"]), record["sha256"]] for name, record in checkpoint["files"].items()]
    table(["File", Column("Size", "right"), "SHA-256"], rows)
    for title in ("fingerprints", "versions"):
        for key, value in checkpoint[title].items():
            say(f"  {title.removesuffix('s')} {key}: {value}")
    say(f"  saved by {checkpoint['world_size']} process(es) of pitstop {checkpoint['pitstop_version']}")


def _time_text(text: Any) -> str:
    """An ISO 8601 time as people read it, to the minute."""
    return str(text)[:16].replace("T", " ") if text else ""
