"""``pitstop show``: one run, its settings and where each came from, its checkpoints, resumes and disk use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.checkpointing.runs.find import locate
from pitstop.cli.arguments.base_dir import BaseDirOption, EnvFileOption, base_directory
from pitstop.cli.reports.run_report import report
from pitstop.cli.terminal.output import Column, paint, print_json, say, table, warn
from pitstop.configs.shown import human_size

_NOTHING = "-"
_SHOWN_METRICS = 4


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="3, run_003, a run's name or a path; 3@best adds that checkpoint.")],
    verify: Annotated[bool | None, typer.Option("--verify", help="Hash every file of every checkpoint again.")] = None,
    base_dir: BaseDirOption = None,
    env_file: EnvFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print everything as JSON.")] = None,
) -> None:
    """Show one run: settings with their sources, checkpoints, resumes and disk use.

    A checkpoint is 'complete' when its manifest and the sizes of its files are right; --verify hashes the files too.

    Examples:

      pitstop show 3
      pitstop show 3 --verify
      pitstop show 3@best
      pitstop show smollm2135-train-r16-a32-e5-20260101-120000 --json
    """
    base = base_directory(base_dir, Path(env_file) if env_file else None)
    directory, checkpoint = locate(base, run)
    content = report(directory, verify=bool(verify), checkpoint=checkpoint)
    if json_output:
        print_json(content)
        return
    for problem in content["problems"]:
        warn(problem)
    _print(content)


def _print(content: Mapping[str, Any]) -> None:
    say(f"{paint(content['run'], 'bold')}  {content['name']}  {content['status']}")
    for label, value in _facts(content):
        say(f"  {label:<12}{value}")
    _settings(content)
    _checkpoints(content)
    _set_aside(content)
    _resumes(content)
    _disk(content["disk"])
    if "checkpoint" in content:
        _contents(content["checkpoint"])


def _facts(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = " ".join(str(content[key]) for key in ("task", "method") if content[key])
    texts = {
        "task": kind,
        "model": content["model"],
        "data": content["dataset"],
        "experiment": content["experiment_name"],
        "created": _time(content["created_at"]),
        "changed": _time(content["updated_at"]),
        "progress": _progress(content["progress"]),
        "ended": content["status_reason"],
        "in use by": _owner(content["in_use_by"]),
        "hub": _hub(content["hub"]),
        "path": content["path"],
    }
    return ((label, str(text)) for label, text in texts.items() if text)


def _progress(progress: Any) -> str:
    if not isinstance(progress, dict) or progress.get("step") is None:
        return ""
    steps = f"step {progress['step']}" + (f" of {progress['total_steps']}" if progress.get("total_steps") else "")
    epochs = f" of {progress['total_epochs']:g}" if progress.get("total_epochs") else ""
    return f"{steps}, epoch {progress.get('epoch') or 0:.4g}{epochs}"


def _owner(owner: Mapping[str, Any] | None) -> str:
    if not owner:
        return ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {_time(owner.get('since'))}"


def _hub(hub: Mapping[str, Any] | None) -> str:
    """``user/name, in step``, or what is missing there and why."""
    if hub is None:
        return ""
    parts = [hub["repo"] or "repository not made yet"]
    if hub["problem"]:
        parts.append(f"failed: {hub['problem']}")
    if hub["waiting"]:
        parts.append(f"{hub['behind']} behind: {', '.join(hub['waiting'])}")
    return ", ".join(parts if len(parts) > 1 else [*parts, hub["state"]])


def _settings(content: Mapping[str, Any]) -> None:
    rows = [[path, _value(value), str(content["sources"].get(path, _NOTHING))] for path, value in _leaves(content["settings"])]
    if rows:
        _heading("Settings of the start")
        table(["Setting", Column("Value", wrap=True), Column("Source", wrap=True)], rows)


def _leaves(nested: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        path = f"{group}.{key}" if group else key
        if isinstance(value, Mapping):
            yield from _leaves(value, path)
        else:
            yield path, value


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _checkpoints(content: Mapping[str, Any]) -> None:
    checkpoints = content["checkpoints"]
    _heading("Checkpoints" if checkpoints else "No checkpoints yet")
    if not checkpoints:
        return
    first = (content["best_checkpoint"] or {}).get("metric")
    columns = [
        Column("Name"),
        Column("Step", "right"),
        Column("Epoch", "right"),
        Column("Metrics", wrap=True),
        Column("Size", "right"),
        Column("Saved"),
        Column("State"),
        Column("Kept as", wrap=True),
    ]
    table(columns, [_checkpoint_row(checkpoint, first) for checkpoint in checkpoints])
    for checkpoint in checkpoints:
        if checkpoint["problem"]:
            warn(checkpoint["problem"])


def _checkpoint_row(checkpoint: Mapping[str, Any], first: str | None) -> list[str]:
    return [
        checkpoint["name"],
        _NOTHING if checkpoint["step"] is None else str(checkpoint["step"]),
        _NOTHING if checkpoint["epoch"] is None else f"{checkpoint['epoch']:.4g}",
        _metrics(checkpoint["metrics"], first),
        _NOTHING if checkpoint["size_bytes"] is None else human_size(checkpoint["size_bytes"]),
        _time(checkpoint["saved_at"]) or _NOTHING,
        checkpoint["state"],
        ", ".join(checkpoint["pins"]),
    ]


def _metrics(metrics: Mapping[str, float | None], first: str | None) -> str:
    """The monitored metric and the next few."""
    names = sorted(metrics, key=lambda name: (name != first, name))[:_SHOWN_METRICS]
    return " ".join(f"{name}={_number(metrics[name])}" for name in names) or _NOTHING


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4g}"


def _set_aside(content: Mapping[str, Any]) -> None:
    if content["set_aside"]:
        _heading("Set aside (only `pitstop prune --set-aside` deletes it)")
    for item in content["set_aside"]:
        why = f": {item['reason']}" if item["reason"] else ""
        say(f"  {item['where']}/{item['name']}  {human_size(item['size_bytes'])}{why}")


def _resumes(content: Mapping[str, Any]) -> None:
    resumes = [entry for entry in content["resumes"] or [] if isinstance(entry, dict)]
    if resumes:
        _heading("Resumed")
    for entry in resumes:
        changes = entry.get("changes") or {}
        text = ", ".join(f"{path}: {_value(pair[0])} → {_value(pair[-1])}" for path, pair in changes.items()) or "nothing changed"
        say(f"  {_time(entry.get('at'))}  from {entry.get('checkpoint')} (step {entry.get('step')}): {text}")


def _disk(disk: Mapping[str, Any]) -> None:
    _heading("Disk")
    aside = f", set aside {human_size(disk['set_aside_bytes'])}" if disk["set_aside_bytes"] else ""
    say(
        f"  this run    {human_size(disk['own_bytes'])} "
        f"(checkpoints {human_size(disk['checkpoints_bytes'])}, logs {human_size(disk['logs_bytes'])}{aside})"
    )
    base = disk["base_model"]
    if base is None:
        return
    runs = base["shared_by_runs"]
    shared = f", one copy for {runs} runs: {human_size(base['saved_bytes'])} saved" if runs and runs > 1 else ""
    say(f"  base model  {human_size(base['size_bytes'])}{shared} ({base['path']})")


def _contents(checkpoint: Mapping[str, Any]) -> None:
    _heading(f"{checkpoint['name']} in {checkpoint['path']}")
    rows = [[name, human_size(record["size_bytes"]), record["sha256"]] for name, record in checkpoint["files"].items()]
    table(["File", Column("Size", "right"), "SHA-256"], rows)
    for title in ("fingerprints", "versions"):
        for key, value in checkpoint[title].items():
            say(f"  {title.removesuffix('s')} {key}: {value}")
    say(f"  saved by {checkpoint['world_size']} process(es) of pitstop {checkpoint['pitstop_version']}")


def _heading(text: str) -> None:
    say()
    say(paint(text, "bold"))


def _time(text: Any) -> str:
    """An ISO 8601 time as people read it, to the minute."""
    return str(text)[:16].replace("T", " ") if text else ""
