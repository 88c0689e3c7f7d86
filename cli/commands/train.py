"""``pitstop train`` and ``pitstop plan``."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import find_base_run
from pitstop.cli.arguments.options import with_settings
from pitstop.cli.terminal.output import print_json
from pitstop.cli.terminal.progress import make_display
from pitstop.configs.errors import PitstopError, RunError, SettingsError
from pitstop.configs.load import Loaded, apply_foreign, load_settings


@with_settings
def train(
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue run --run-number (the newest unless given): the same as pitstop resume.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and start nothing.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print a summary as JSON at the end; progress goes to stderr.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")] = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> int:
    """Start a new fine-tuning run in the next free run_NNN.

    Settings come from flags, the environment, .env, --config files and defaults, in this order. With neither a model nor
    data set anywhere, it trains the demo model on the shipped medical records.

    Examples:

      pitstop train --epochs 10
      pitstop train --model-id Qwen/Qwen2.5-0.5B-Instruct --dataset data.jsonl
      pitstop train --dataset a.jsonl --dataset b.jsonl --eval-fraction 0.1
      pitstop train --dataset a.jsonl:0.7 --dataset b.jsonl:0.3
      pitstop train --method lora --lora-rank 16 --learning-rate 1e-4
      pitstop train --task ner --dataset train.pubtator --eval-dataset dev.pubtator --monitor ner_f1 --mode max
      pitstop train --config medical_ner --dataset train.jsonl --eval-dataset validation.jsonl
      pitstop train --method full --from-scratch --model-config small.json --tokenizer ./tokenizer --dataset corpus.jsonl
      pitstop train --from base_training/1@best --dataset data.jsonl
      pitstop train --config demo --dry-run
      pitstop train --config ml-100k --dataset ./ml-100k
    """
    loaded = load_settings(
        flags=flags, config_files=config_files, env_file=env_file, require_model_and_data=not resume, find_base_run=find_base_run
    )
    checkpoint = loaded.settings.training.checkpoint
    if resume or checkpoint.resume_from_run is not None:
        return _resume(loaded, flags, config_files, env_file, json_output=json_output, quiet=quiet)
    apply_foreign(env_file)
    _refuse_taken_number(loaded)
    if dry_run:
        from pitstop.cli.reports.plan import show_plan

        return show_plan(loaded, json_output=json_output)
    return run_processes(loaded, json_output=json_output, quiet=quiet)


@with_settings
def plan(
    json_output: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> int:
    """Show what train would do, and start nothing.

    The resolved settings, trainable parameters, predicted peak memory, disk, steps and time. The same as train --dry-run.

    Examples:

      pitstop plan
      pitstop plan --model-id ./my-model --dataset data.jsonl --json
    """
    from pitstop.cli.reports.plan import show_plan

    loaded = load_settings(
        flags=flags, config_files=config_files, env_file=env_file, require_model_and_data=True, find_base_run=find_base_run
    )
    apply_foreign(env_file)
    return show_plan(loaded, json_output=json_output)


def run_processes(loaded: Loaded, *, json_output: bool, quiet: bool) -> int:
    """Train in this process, or in as many as NUM_PROCESSES says; returns the exit code."""
    from pitstop.trainers.machine import launch

    launch.prepare_environment()
    processes = loaded.settings.training.num_processes
    if processes > 1 and not launch.is_worker():
        return launch.launch(processes, sys.argv[1:])
    display = make_display(quiet=quiet, json_output=json_output)
    if launch.rank() == 0:
        display.line("Loading libraries …")
    from pitstop.trainers.training.worker import train as train_here

    with speaking_for_all():
        result = train_here(loaded, now=datetime.now().astimezone(), display=display)
    if json_output and result.summary:
        print_json(result.summary)
    return result.exit_code


class speaking_for_all:
    """Of an error that every process meets (a wrong path, say) only the first process speaks."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Turn the other processes' user errors into silent exits with the same code; say it where one of them died."""
        from pitstop.trainers.machine import launch

        shown = launch.lost_peer(error) if error is not None else None
        if launch.rank() > 0 and shown is not None:
            time.sleep(launch.AFTER_THE_CAUSE_S)
        if launch.rank() > 0 and isinstance(shown or error, PitstopError):
            raise typer.Exit((shown or error).exit_code) from None  # type: ignore[union-attr]
        if shown is not None:
            raise shown from error


def _refuse_taken_number(loaded: Loaded) -> None:
    """``train --run-number 3`` with a run 3: say so before the model is loaded."""
    from pitstop.checkpointing.disk.layout import run_directory_name

    checkpoint, group = loaded.settings.training.checkpoint, _group(loaded)
    if (
        checkpoint.run_number is not None
        and (path := Path(checkpoint.base_dir) / group / run_directory_name(checkpoint.run_number)).exists()
    ):
        again = f"{group}/{checkpoint.run_number}" if group else f"--run-number {checkpoint.run_number}"
        raise RunError(
            f"run {checkpoint.run_number} exists: {path}",
            hint=f"Continue it with 'pitstop resume {again}', or leave --run-number out for a new run.",
        )


def _group(loaded: Loaded) -> str:
    """Base trainings are numbered apart."""
    from pitstop.checkpointing.disk.layout import BASE_TRAINING

    return BASE_TRAINING if loaded.settings.training.all_weights else ""


def _resume(
    loaded: Loaded, flags: dict[str, Any], config_files: list[str], env_file: Path | None, *, json_output: bool, quiet: bool
) -> int:
    from pitstop.cli.commands.resume import resume_run

    if (
        config_files
        and "training.checkpoint.resume_from_run" not in flags
        and not loaded.settings.training.checkpoint.resume_from_run
    ):
        raise SettingsError(
            "--resume takes no --config: a resumed run keeps its own settings.", hint="Give what should change as flags."
        )
    checkpoint = loaded.settings.training.checkpoint
    number, group = checkpoint.resume_from_run or checkpoint.run_number, _group(loaded)
    overrides = {
        path: value
        for path, value in flags.items()
        if path not in ("training.checkpoint.base_dir", "training.checkpoint.run_number", "training.checkpoint.resume_from_run")
    }
    return resume_run(
        None if number is None else f"{group}/{number}" if group else str(number),
        base_dir=checkpoint.base_dir,
        flags=overrides,
        env_file=env_file,
        json_output=json_output,
        quiet=quiet,
    )
