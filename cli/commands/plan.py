"""``pitstop plan``: what ``train`` would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import find_base_run
from pitstop.cli.arguments.foreign import pass_on
from pitstop.cli.arguments.options import with_settings
from pitstop.cli.reports.plan import show_plan
from pitstop.configs.load import load_settings


@with_settings
def plan(
    all_settings: Annotated[bool, typer.Option("--all", help="List every setting, also those at their defaults.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> int:
    """Show what train would do, and start nothing.

    Predicted time, peak memory, disk and steps come first, then the settings that are not at their defaults. train --dry-run
    does the same.

    Examples:

      pitstop plan
      pitstop plan --all
      pitstop plan --model-id ./my-model --dataset data.jsonl --json
    """
    loaded = load_settings(
        flags=flags, config_files=config_files, env_file=env_file, require_model_and_data=True, find_base_run=find_base_run
    )
    return show_plan(loaded, pass_on(env_file), all_settings=all_settings, json_output=json_output)
