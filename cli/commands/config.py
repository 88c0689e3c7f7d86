"""``pitstop config``: every setting with its source, and whether they are all right."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import find_base_run
from pitstop.cli.arguments.foreign import not_settings
from pitstop.cli.arguments.options import with_settings
from pitstop.cli.reports.settings_view import loaded_rows, print_settings, sources_as_dict
from pitstop.cli.terminal.output import notice, print_json, say
from pitstop.configs.load import load_settings, settings_to_dict
from pitstop.configs.secrets import mask
from pitstop.configs.sources import unknown_names
from pitstop.naming.names import hub_id, run_name

app = typer.Typer(
    name="config", help="Show or validate every setting with its source.", no_args_is_help=True, add_completion=False
)


@app.command()
@with_settings
def show(
    json_output: Annotated[bool, typer.Option("--json", help="Print settings and sources as JSON.")] = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> None:
    """Show every setting that train would use, with its source.

    Flags override the environment, which overrides .env, --config files and the defaults.

    Examples:

      pitstop config show
      pitstop config show --config training/lora_finetuning --lora-rank 8
      pitstop config show --json
    """
    loaded = load_settings(flags=flags, config_files=config_files, env_file=env_file, find_base_run=find_base_run)
    notes = [*loaded.notes, *_not_settings(env_file)]
    for note in notes:
        notice(note)
    if json_output:
        print_json({"settings": settings_to_dict(loaded.settings), "sources": sources_as_dict(loaded), "notes": notes})
        return
    print_settings(loaded_rows(loaded))


@app.command()
@with_settings
def validate(
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> None:
    """Check every setting in every source, overridden ones included, and the name of the run.

    The exit code is 0 if all are valid, else 2 with a message that says what to change. No model and no data are read.

    Examples:

      pitstop config validate
      pitstop config validate --config my.yaml --env-file prod.env
    """
    loaded = load_settings(
        flags=flags,
        config_files=config_files,
        env_file=env_file,
        require_model_and_data=True,
        check_overridden=True,
        find_base_run=find_base_run,
    )
    name = run_name(loaded.settings, datetime.now().astimezone())
    if loaded.settings.hub.username:
        hub_id(loaded.settings.hub.username, name.text)
    notes = [*loaded.notes, *name.notes, *_not_settings(env_file)]
    kinds = Counter(source.kind for source in loaded.sources.values())
    for note in notes:
        notice(note)
    if json_output:
        print_json({"valid": True, "settings": len(loaded.sources), "from": dict(kinds), "notes": notes})
        return
    say(
        f"{len(loaded.sources)} settings are valid ({', '.join(f'{count} from {_PLURAL[kind]}' for kind, count in kinds.items())})."
    )


def _not_settings(env_file: Path | None) -> list[str]:
    names = unknown_names(env_file)
    return [mask(str(not_settings(names, env_file)))] if names else []


_PLURAL = {
    "flag": "flags",
    "environment": "the environment",
    "env-file": "the .env file",
    "config": "--config files",
    "preset": "presets",
    "default": "defaults",
    "run": "the run",
    "base run": "the base training",
}
