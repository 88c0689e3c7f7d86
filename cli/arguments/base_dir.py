"""Where the runs are, for commands that need no other setting and must answer at once.

The settings' loader would do, but it costs a tenth of a second for importing the schema. The order is the same:
flag, environment, ``.env``, default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pitstop.configs.errors import RunError, SettingsError
from pitstop.configs.paths import obstacle

if TYPE_CHECKING:
    from pitstop.configs.load import BaseRun

BaseDirOption = Annotated[
    str | None, typer.Option(metavar="DIR", help="Directory of the runs (default: OUTPUT_DIR, else checkpoints).")
]
EnvFileOption = Annotated[str | None, typer.Option(metavar="FILE", help="Read OUTPUT_DIR from this file instead of .env.")]
TokenFileOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Read HF_TOKEN and OUTPUT_DIR from this file instead of .env.")
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
    path = env_file or Path(".env")
    for variables, source in ((os.environ, "the environment"), (_env_file(path, required=env_file is not None), str(path))):
        for name in NAMES:
            value = variables.get(name)
            if value is not None:
                return value, f"{name} in {source}"
    return DEFAULT, "the default"


def _env_file(path: Path, *, required: bool) -> Mapping[str, str | None]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if not required:
            return {}
        raise SettingsError(
            f"There is no file {path}.", hint="Check the path; it is relative to the current directory."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}.") from None
    if NAMES[1] not in text:
        return {}  # which spares importing the parser
    from io import StringIO

    from dotenv import dotenv_values

    return dotenv_values(stream=StringIO(text))


def find_base_run(base_dir: str, reference: str) -> BaseRun:
    """What ``--from`` means, for ``load_settings``. ``RunError``, ``CheckpointError``."""
    from pitstop.checkpointing.runs.base_runs import look_up

    return look_up(base_dir, reference)
