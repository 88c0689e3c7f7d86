"""The ``pitstop`` command: the table of commands and the way in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from pitstop.cli.boundary import after_output, run_guarded
from pitstop.cli.lazy import CommandEntry, finish, lazy_group
from pitstop.cli.terminal import streams
from pitstop.trainers.machine.launch import is_worker, leave_worker

TRAINING, USE, RUNS, SETUP = "Training", "Use", "Runs", "Setup"

# A new command is one file in this package and one line here.
COMMANDS: dict[str, CommandEntry] = {
    "train": CommandEntry("pitstop.cli.commands.train", "train", "Start a new fine-tuning run.", TRAINING),
    "resume": CommandEntry(
        "pitstop.cli.commands.resume", "resume", "Continue a run exactly where a checkpoint left it.", TRAINING
    ),
    "plan": CommandEntry("pitstop.cli.commands.train", "plan", "Show what train would do, and start nothing.", TRAINING),
    "preview": CommandEntry(
        "pitstop.cli.commands.preview", "preview", "Show records as training gets them, and what is learnt.", TRAINING
    ),
    "list-runs": CommandEntry(
        "pitstop.cli.commands.list_runs", "list_runs", "List runs with their progress and best checkpoint.", RUNS
    ),
    "show": CommandEntry("pitstop.cli.commands.show", "show", "Show one run: progress, checkpoints, settings, disk use.", RUNS),
    "compare": CommandEntry("pitstop.cli.commands.compare", "compare", "Compare runs: settings, metrics, loss curves.", RUNS),
    "verify": CommandEntry("pitstop.cli.commands.verify", "verify", "Check the hashes of checkpoints and base models.", RUNS),
    "prune": CommandEntry("pitstop.cli.commands.prune", "prune", "Delete old checkpoints and leftovers of crashes.", RUNS),
    "delete": CommandEntry("pitstop.cli.commands.delete", "delete", "Delete a whole run.", RUNS),
    "push": CommandEntry("pitstop.cli.commands.push", "push", "Push a run's checkpoints to the Hub.", RUNS),
    "pull": CommandEntry("pitstop.cli.commands.pull", "pull", "Download a run from the Hugging Face Hub.", RUNS),
    "generate": CommandEntry(
        "pitstop.cli.commands.generate", "generate", "Answer prompts, chat or make images with a checkpoint.", USE
    ),
    "evaluate": CommandEntry("pitstop.cli.commands.evaluate", "evaluate", "Evaluate a checkpoint as its training did.", USE),
    "export": CommandEntry("pitstop.cli.commands.export", "export", "Export a checkpoint for other programs.", USE),
    "name": CommandEntry("pitstop.cli.commands.name", "name", "Preview the names that a run would get.", RUNS),
    "config": CommandEntry("pitstop.cli.commands.config", "app", "Show or validate every setting with its source.", SETUP),
    "doctor": CommandEntry("pitstop.cli.commands.doctor", "doctor", "Check what this machine can do.", SETUP),
    "fetch-demo": CommandEntry("pitstop.cli.commands.fetch_demo", "fetch_demo", "Download the demo model into the cache.", SETUP),
}

app = typer.Typer(
    name="pitstop",
    cls=lazy_group(COMMANDS),
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Examples:\n\n"
    "  pitstop train --epochs 10             the demo model and records\n"
    "  pitstop train --model-id Qwen/Qwen2.5-0.5B-Instruct --dataset data.jsonl\n"
    "  pitstop resume 3                      continue run_003\n"
    "  pitstop list-runs                     status and progress of every run\n\n"
    "Help on one command: pitstop train --help",
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        print(f"pitstop {version('pitstop')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def pitstop(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Start, stop and resume fine-tuning without losing a step."""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``pitstop`` with ``arguments`` (the process's own unless given) and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = typer.main.get_command(app)
    finish(command)
    return run_guarded(lambda: command.main(args=list(arguments), prog_name="pitstop", standalone_mode=False), arguments)


def run() -> NoReturn:
    """The process that is ``pitstop``, from its arguments to its end."""
    streams.restart_in_utf_8()
    streams.prepare()
    code = after_output(main())
    if is_worker():
        leave_worker(code)
    sys.exit(code)
