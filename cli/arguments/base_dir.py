"""Where the runs are, for commands that need no other setting and must answer at once.

The settings' loader would do, but it costs a tenth of a second for importing the schema. The order is the same:
flag, environment, ``.env``, default.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pitstop.configs.env_file import assignments, default_env_file, read_text
from pitstop.configs.errors import RunError, SettingsError
from pitstop.configs.paths import obstacle

if TYPE_CHECKING:
    from pitstop.checkpointing.runs.run_directory import RunDirectory
    from pitstop.configs.load import BaseRun

BaseDirOption = Annotated[
    str | None, typer.Option(metavar="DIR", help="Directory of the runs (default: OUTPUT_DIR, else checkpoints).")
]
EnvFileOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Read OUTPUT_DIR from this file instead of .env.")]
TokenFileOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Read HF_TOKEN and OUTPUT_DIR from this file instead of .env.")
]

DEFAULT = "checkpoints"
NAMES = ("PITSTOP_OUTPUT_DIR", "OUTPUT_DIR")


def base_directory(flag: str | None, env_file: Path | None) -> Path:
    """The directory of all runs.

    Raises:
        SettingsError: ``env_file`` cannot be read, the value is empty, or something that is no directory stands there.
    """
    value, source = _chosen(flag, env_file)
    if not value.strip():
        raise SettingsError(f"{source} is empty.", hint="Give the directory that holds the runs, or leave it out.")
    base = Path(value).expanduser()
    if in_the_way := obstacle(base):
        raise SettingsError(
            f"{source} = {value} is no directory of runs: {in_the_way}.", hint="Give another one with --base-dir."
        )
    return base


def existing_base_directory(flag: str | None, env_file: Path | None) -> Path:
    """As ``base_directory``, for commands whose answer would say nothing about a directory that is not there.

    Raises:
        RunError: there is no such directory.
    """
    base = base_directory(flag, env_file)
    if not base.is_dir():
        raise RunError(
            f"there is no directory {base}, so there are no runs in it",
            hint="start a run with `pitstop train`, or point at another directory with --base-dir (OUTPUT_DIR)",
        )
    return base


def _chosen(flag: str | None, env_file: Path | None) -> tuple[str, str]:
    if flag is not None:
        return flag, "--base-dir"
    path, lines = env_file or default_env_file(), {}
    if path is not None and NAMES[1] in read_text(path):  # elsewhere the import of the parser is spared
        lines = {assignment.name: assignment.value for assignment in assignments(path, os.environ)}
    for variables, source in ((os.environ, "the environment"), (lines, str(path))):
        for name in NAMES:
            if name in variables:
                return variables[name], f"{name} in {source}"
    return DEFAULT, "the default"


def whole_run(base: Path, ref: str, purpose: str, hint: str) -> RunDirectory:
    """The run that ``ref`` means. ``RunError`` where that is one checkpoint: ``purpose`` and ``hint`` (with {run}) say what to give."""
    from pitstop.checkpointing.runs.find import locate

    run, checkpoint = locate(base, ref)
    if checkpoint is not None:
        raise RunError(f"'{ref}' is one checkpoint; {purpose}", hint=hint.format(run=run.label))
    return run


def find_base_run(base_dir: str, reference: str) -> BaseRun:
    """What ``--from`` means, for ``load_settings``. ``RunError``, ``CheckpointError``."""
    from pitstop.checkpointing.runs.base_runs import look_up

    return look_up(base_dir, reference)
