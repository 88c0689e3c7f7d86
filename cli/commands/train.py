"""``pitstop train``: start a new run; ``pitstop plan``: what that would do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import find_base_run
from pitstop.cli.arguments.foreign import pass_on
from pitstop.cli.arguments.options import with_settings
from pitstop.cli.arguments.processes import QuietOption, SummaryOption, start_or_join
from pitstop.cli.reports.plan import show_plan
from pitstop.configs.errors import RunError, SettingsError
from pitstop.configs.load import Loaded, load_settings
from pitstop.configs.notices import Notice
from pitstop.trainers.training.request import ResumeRequest

if TYPE_CHECKING:
    from pitstop.trainers.reporter import Display
    from pitstop.trainers.training.trainer import Result

_RESUME_FROM_RUN = "training.checkpoint.resume_from_run"
_RUN_FLAGS = ("training.checkpoint.base_dir", "training.checkpoint.run_number", _RESUME_FROM_RUN)
"""Say which run is meant; every other flag changes its settings."""


@with_settings
def train(
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run --run-number (default: the newest), as pitstop resume does.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    json_output: SummaryOption = False,
    quiet: QuietOption = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> int:
    """Start a new fine-tuning run in the next free run_NNN.

    Flags override the environment, which overrides .env, --config files and the defaults. Without a setting for model and
    data, the demo model is trained on the medical records that come with Pitstop.

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
        if dry_run:
            raise SettingsError(
                "--dry-run shows the plan of a new run, and --resume continues one.",
                hint="Leave one of them out; pitstop show RUN tells how far a run got.",
            )
        return _resume(loaded, flags, config_files, env_file, json_output=json_output, quiet=quiet)
    early = pass_on(env_file)
    _refuse_taken_number(loaded)
    if dry_run:
        return show_plan(loaded, early, all_settings=False, json_output=json_output)

    def training(display: Display, notices: Sequence[Notice]) -> Result:
        from pitstop.trainers.training import worker

        return worker.train(loaded, now=datetime.now().astimezone(), display=display, notices=notices)

    return start_or_join(loaded.settings.training.num_processes, training, early=early, json_output=json_output, quiet=quiet)


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


def _refuse_taken_number(loaded: Loaded) -> None:
    """``train --run-number 3`` with a run 3: say so before the model is loaded."""
    from pitstop.checkpointing.disk.layout import run_directory_name

    checkpoint, group = loaded.settings.training.checkpoint, _group(loaded)
    number = checkpoint.run_number
    if number is None:
        return
    path = Path(checkpoint.base_dir) / group / run_directory_name(number)
    if path.exists():
        run = f"{group}/{number}" if group else f"--run-number {number}"
        raise RunError(
            f"run {number} exists: {path}",
            hint=f"Continue it with 'pitstop resume {run}', or leave --run-number out for a new run.",
        )


def _group(loaded: Loaded) -> str:
    """Base trainings are numbered apart."""
    from pitstop.checkpointing.disk.layout import BASE_TRAINING

    return BASE_TRAINING if loaded.settings.training.all_weights else ""


def _resume(
    loaded: Loaded, flags: dict[str, Any], config_files: list[str], env_file: Path | None, *, json_output: bool, quiet: bool
) -> int:
    """``train --resume`` and ``--resume-from-run`` are other ways to write ``pitstop resume``."""
    from pitstop.cli.commands.resume import newest_run, resume_run

    checkpoint = loaded.settings.training.checkpoint
    if config_files and (_RESUME_FROM_RUN in flags or not checkpoint.resume_from_run):
        option = "--resume-from-run" if _RESUME_FROM_RUN in flags else "--resume"
        raise SettingsError(
            f"{option} takes no --config: a resumed run keeps its own settings.", hint="Give what should change as flags."
        )
    number, group = checkpoint.resume_from_run or checkpoint.run_number, _group(loaded)
    changes = {path: value for path, value in flags.items() if path not in _RUN_FLAGS}
    run = newest_run(checkpoint.base_dir) if number is None else f"{group}/{number}" if group else str(number)
    request = ResumeRequest(checkpoint.base_dir, run, flags=changes, env_file=env_file)
    return resume_run(request, json_output=json_output, quiet=quiet)
