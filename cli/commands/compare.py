"""``pitstop compare``: what differs between runs, their metrics side by side, and their curves in one picture."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.checkpointing.disk.storage import LocalStorage, atomic_write
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.cli.arguments.base_dir import BaseDirOption, EnvFileOption, base_directory, whole_run
from pitstop.cli.reports.compare_text import print_comparison
from pitstop.cli.reports.comparison import comparison
from pitstop.cli.terminal.output import is_terminal, notice, print_json, warn
from pitstop.configs.errors import ResourceError, RunError, SettingsError, is_disk_full

FEWEST, MOST = 2, 8


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Two to eight runs: 3, run_003, a name or a path.")],
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Metric of the curves (default: loss, with val_loss dashed).")
    ] = None,
    show_all: Annotated[bool | None, typer.Option("--all", help="List all settings, not only those that differ.")] = None,
    plot: Annotated[
        bool | None, typer.Option("--plot/--no-plot", help="Draw the curves as text (default: on a terminal).")
    ] = None,
    png: Annotated[str | None, typer.Option(metavar="FILE", help="Write the curves to this PNG file.")] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write tables and curves to this HTML page, which needs no network.")
    ] = None,
    base_dir: BaseDirOption = None,
    env_file: EnvFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print everything as JSON, the curves included.")] = None,
) -> None:
    """Compare runs: the settings that differ, metrics side by side, loss curves.

    Settings are the current ones, after any resume; '-' means not set. Metrics are those of each run's best checkpoint. A
    star marks the best value if the runs were evaluated on the same data and it is known whether more or less is better.

    Examples:

      pitstop compare 3 4
      pitstop compare 3 4 5 --metric val_loss
      pitstop compare 3 4 --html comparison.html --png curves.png
      pitstop compare 3 4 --json | jq '.settings[] | {setting, values}'
    """
    targets = _targets({"--png": png, "--html": html})
    base = base_directory(base_dir, env_file)
    content = comparison(_find(base, runs), metric=metric or "loss", everything=bool(show_all))
    for problem in content["problems"]:
        warn(problem)
    _write(content, targets)
    if json_output:
        print_json(content)
    else:
        print_comparison(content, plotted=is_terminal() if plot is None else plot, complete=bool(show_all))


def _find(base: Path, refs: Sequence[str]) -> list[RunDirectory]:
    if not FEWEST <= len(refs) <= MOST:
        count = "one is given" if len(refs) == 1 else f"{len(refs)} are given"
        raise SettingsError(
            f"compare takes {FEWEST} to {MOST} runs, and {count}.", hint="`pitstop list-runs` shows what there is."
        )
    runs: dict[Path, RunDirectory] = {}
    for ref in refs:
        hint = f"Give {{run}}: its best checkpoint is what is compared. `pitstop show {ref}` shows one checkpoint."
        run = whole_run(base, ref, "compare takes whole runs", hint)
        path = run.path.resolve()
        if path in runs:
            raise SettingsError(f"{ref} is {run.label}, which is given twice.", hint="Give each run once.")
        runs[path] = run
    return list(runs.values())


def _targets(names: dict[str, str | None]) -> dict[str, Path]:
    """The files to write, by flag. They are checked before anything is read, so that nobody waits for a file that cannot be."""
    targets = {flag: Path(name).expanduser() for flag, name in names.items() if name is not None}
    for flag, path in targets.items():
        if not path.name or path.name == "..":
            raise SettingsError(f"{flag} '{path}': a file is expected.")
        if not path.parent.is_dir():
            raise SettingsError(
                f"{flag} {path}: there is no directory {path.parent}.", hint="Make it first, or choose another place."
            )
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise SettingsError(f"{flag} {path} is there and not a regular file.", hint="Choose another name.")
    if len({path.parent.resolve() / path.name for path in targets.values()}) < len(targets):
        raise SettingsError("--png and --html name the same file.", hint="Give each a name of its own.")
    return targets


def _write(content: dict[str, Any], targets: dict[str, Path]) -> None:
    if not targets:
        return
    from pitstop.cli.reports.compare_picture import picture

    drawn = picture(content)
    if drawn is None and "--png" in targets:
        raise RunError(
            f"--png {targets['--png']}: none of these runs has logged {content['curves']['metric']} yet, so there is nothing to draw.",
            hint="Train some steps first.",
        )
    if drawn is not None and "--png" in targets:
        _save(targets["--png"], drawn)
    if "--html" in targets:
        from pitstop.cli.reports.compare_page import page

        _save(targets["--html"], page(content, drawn).encode())


def _save(path: Path, data: bytes) -> None:
    try:
        atomic_write(LocalStorage(), path, data)
    except OSError as error:
        kind = ResourceError if is_disk_full(error) else SettingsError
        raise kind(f"{path} could not be written: {error.strerror or error}.", hint="Choose another place.") from error
    notice(f"written: {path}")
