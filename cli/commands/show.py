"""``pitstop show``: one run, its progress, checkpoints, resumes, disk use and settings."""

from __future__ import annotations

from typing import Annotated

import typer

from pitstop.checkpointing.runs.find import locate
from pitstop.cli.arguments.base_dir import BaseDirOption, EnvFileOption, base_directory
from pitstop.cli.reports.run_report import report
from pitstop.cli.terminal.output import print_json, warn


def show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run: 3, run_003, its name or path; 3@best adds the files of that checkpoint.")
    ],
    all_settings: Annotated[bool | None, typer.Option("--all", help="List every setting, also those at their defaults.")] = None,
    verify: Annotated[bool | None, typer.Option("--verify", help="Check the hash of every file of every checkpoint.")] = None,
    base_dir: BaseDirOption = None,
    env_file: EnvFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print everything as JSON.")] = None,
) -> None:
    """Show one run: progress, best checkpoint, memory, time, disk use, checkpoints, resumes, and settings that are not at their defaults.

    Memory is the most that a process of the training held; time is that of all its processes, each up to its last checkpoint or its end.
    A checkpoint is 'complete' if its manifest and the sizes of its files are right; --verify checks their hashes too.

    Examples:

      pitstop show 3
      pitstop show 3 --all
      pitstop show 3 --verify
      pitstop show 3@best
      pitstop show smollm2135-train-r16-a32-e5-20260101-120000 --json
    """
    base = base_directory(base_dir, env_file)
    directory, checkpoint = locate(base, run)
    content = report(directory, verify=bool(verify), checkpoint=checkpoint)
    if json_output:
        print_json(content)
        return
    for problem in content["problems"]:
        warn(problem)
    from pitstop.cli.reports.run_text import print_run

    print_run(content, all_settings=bool(all_settings))
