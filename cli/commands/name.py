"""``pitstop name``: what a run that started now would be called."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import find_base_run
from pitstop.cli.arguments.options import with_settings
from pitstop.cli.reports.settings_view import loaded_rows, print_settings, sources_as_dict
from pitstop.cli.terminal.output import Column, notice, print_json, say, table, warn
from pitstop.configs.errors import SettingsError
from pitstop.configs.load import Loaded, load_settings, settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.naming.names import SCHEMES, Name, all_names, hub_id, run_name, unique

# Asking for a variant of the name is asking for one name.
_VARIANTS = ("naming.timestamp", "naming.short", "naming.with_hash")


@with_settings
def name(
    simple: Annotated[bool, typer.Option("--simple", help="Print one line: exactly the name that train would use.")] = False,
    hub: Annotated[bool, typer.Option("--hub", help="Print the Hub id, HF_USERNAME/name.")] = False,
    full_config: Annotated[bool, typer.Option("--full-config", help="Print the name and every setting.")] = False,
    save_metadata: Annotated[
        bool, typer.Option("--save-metadata", help="Save name and settings as names/NAME.json in the base directory.")
    ] = False,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Time of the start, for example 2024-09-14T14:30:22 (default: now)."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> None:
    """Preview the names that a run would get.

    Without options, the name of every naming scheme is listed. With --simple, --short, --with-hash, --no-timestamp or --hub,
    one line is printed. The settings are those that train would use.

    Examples:

      pitstop name
      pitstop name --simple
      pitstop name --simple --lora-rank 8 --at 2024-09-14T14:30:22
      pitstop name --full-config --save-metadata
    """
    loaded = load_settings(flags=flags, config_files=config_files, env_file=env_file, find_base_run=find_base_run)
    start = _start_time(at)
    chosen = _chosen(loaded.settings, start)
    for note in [*loaded.notes, *chosen.notes]:
        notice(note)
    report = _report(loaded, start, chosen) if save_metadata or json_output else {}
    saved_to = _save(report, loaded) if save_metadata else None
    if saved_to:
        notice(f"saved {saved_to}")
    if json_output:
        print_json({**report, "saved_to": str(saved_to) if saved_to else None})
    elif full_config:
        _print_full(chosen, loaded)
    elif hub:
        say(hub_id(loaded.settings.hub.username, chosen.text))
    elif simple or any(flag in flags for flag in _VARIANTS):
        say(chosen.text)
    else:
        _print_schemes(loaded.settings, start, chosen)


def _start_time(at: str | None) -> datetime:
    if at is None:
        return datetime.now().astimezone()
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        raise SettingsError(f"--at: '{at}' is not a time.", hint="Write it as 2024-09-14T14:30:22.") from None


def _chosen(settings: Settings, start: datetime) -> Name:
    """The name that ``train`` would use: a name that another run has is counted up."""
    derived = run_name(settings, start)
    names = Path(settings.training.checkpoint.base_dir) / "by-name"
    text = unique(derived.text, lambda candidate: os.path.lexists(names / candidate))
    if text == derived.text:
        return derived
    return Name(text, (*derived.notes, f"There is a run named {derived.text} already in {names.parent}."))


def _report(loaded: Loaded, start: datetime, chosen: Name) -> dict[str, Any]:
    username = loaded.settings.hub.username
    return {
        "name": chosen.text,
        "hub_id": hub_id(username, chosen.text) if username else None,
        "at": start.isoformat(timespec="seconds"),
        "schemes": {scheme: name.text for scheme, name in all_names(loaded.settings, start).items()},
        "settings": settings_to_dict(loaded.settings),
        "sources": sources_as_dict(loaded),
        "notes": [*loaded.notes, *chosen.notes],
    }


def _save(report: Mapping[str, Any], loaded: Loaded) -> Path:
    from pitstop.checkpointing.disk.storage import LocalStorage, atomic_write, make_directories

    storage = LocalStorage()
    directory = Path(loaded.settings.training.checkpoint.base_dir) / "names"
    make_directories(storage, directory)
    path = directory / f"{unique(report['name'], lambda text: (directory / f'{text}.json').exists())}.json"
    atomic_write(storage, path, (json.dumps({"format_version": 1, **report}, indent=2) + "\n").encode())
    return path


def _print_full(chosen: Name, loaded: Loaded) -> None:
    username = loaded.settings.hub.username
    say(f"name    {chosen.text}")
    say(f"hub id  {hub_id(username, chosen.text) if username else '(set HF_USERNAME)'}")
    say()
    print_settings(loaded_rows(loaded))


def _print_schemes(settings: Settings, start: datetime, chosen: Name) -> None:
    names = all_names(settings, start)
    rows = [("train would use", chosen.text, "")]
    rows += [
        (scheme, name.text, SCHEMES[scheme].option if scheme in SCHEMES else "--name-template") for scheme, name in names.items()
    ]
    if settings.hub.username:
        rows.append(("Hub id", hub_id(settings.hub.username, chosen.text), "--hub"))
    table([Column("Scheme"), Column("Name", style="bold"), Column("How", wrap=True)], rows)
    for name in names.values():
        if name.text != chosen.text:
            for note in name.notes:
                warn(f"{name.text}: {note}")
