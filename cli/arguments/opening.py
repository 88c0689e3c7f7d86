"""Options that generate, evaluate and export share, and how they open a checkpoint and report it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import base_directory
from pitstop.cli.terminal.output import notice, tell
from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.trainers.reporter import Reporter
    from pitstop.trainers.training.chosen import ChosenCheckpoint
    from pitstop.trainers.using.answering import Answering
    from pitstop.trainers.using.opened import OpenModel

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run: 3, run_003, its name or path; 3@last or 3@epoch_002 picks a checkpoint (default: the best).",
    ),
]
ModelIdOption = Annotated[
    str | None,
    typer.Option("--model-id", metavar="ID", help="Hub id or directory of the base model, if the run has no copy of it."),
]


def choose(run: str, base_dir: str | None, env_file: Path | None, model_id: str | None = None) -> ChosenCheckpoint:
    """The verified checkpoint that ``run`` means. The run is looked for before the libraries are loaded, which takes seconds.

    Raises ``RunError`` and ``CheckpointError``.
    """
    from pitstop.checkpointing.runs.find import locate
    from pitstop.cli.arguments.foreign import pass_on
    from pitstop.trainers.machine import launch

    base = base_directory(base_dir, env_file)
    locate(base, run)
    tell([*pass_on(env_file), *launch.prepare_environment()])
    if "torch" not in sys.modules:
        notice("Loading libraries …")
    from pitstop.trainers.using import opened

    return opened.choose(base, run, model_id=model_id, env_file=env_file)


def refuse(options: Mapping[str, Any], plan: ChosenCheckpoint) -> None:
    """Raises ``SettingsError`` for options that were given (are not None) and mean nothing for the run's task."""
    for option, value in options.items():
        if value is not None:
            raise SettingsError(
                f"{option}: {plan.run.label} is of the task {plan.settings.training.task}, for which it means nothing.",
                hint="Leave it out.",
            )


def progress_notice(total: int) -> Callable[[int], None]:
    """Says on stderr how many of ``total`` are answered, while some are not yet."""
    return lambda count: notice(f"{count} of {total} answered") if count < total else None


def answer_report(opened: OpenModel, answering: Answering) -> dict[str, Any]:
    """What a JSON report of answers begins with."""
    plan = opened.chosen
    return {
        "run": plan.run.label,
        "checkpoint": plan.info.name,
        "step": plan.info.step,
        "base_model": plan.settings.model.id,
        "device": str(opened.hardware.device),
        "precision": str(opened.hardware.precision.compute).removeprefix("torch."),
        "max_new_tokens": answering.max_new_tokens,
        "sampling": asdict(answering.sampling) if answering.sampling else None,
    }


def reporter() -> Reporter:
    """Reports on stderr while a model is opened."""
    from pitstop.cli.terminal.progress import make_display
    from pitstop.trainers.reporter import Reporter

    return Reporter(make_display(quiet=False, json_output=True))
