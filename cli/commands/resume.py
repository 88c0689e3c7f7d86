"""``pitstop resume``: continue a run where a checkpoint left it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pitstop.cli.arguments.base_dir import base_directory
from pitstop.cli.arguments.foreign import pass_on
from pitstop.cli.arguments.options import with_settings
from pitstop.cli.arguments.processes import QuietOption, SummaryOption, start_or_join
from pitstop.cli.commands.pull import pull_run
from pitstop.configs.errors import RunError, SettingsError
from pitstop.configs.load import load_recorded
from pitstop.configs.notices import Notice
from pitstop.configs.schema import TrainingSettings
from pitstop.trainers.training.request import ResumeRequest

if TYPE_CHECKING:
    from pitstop.trainers.reporter import Display
    from pitstop.trainers.training.trainer import Result

_BASE_DIR, _RUN_NUMBER = "training.checkpoint.base_dir", "training.checkpoint.run_number"
_NUM_PROCESSES = "training.num_processes"


@with_settings(config=False, exclude=("training.checkpoint.resume_from_run",))
def resume(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="A run: 3, run_003, its name or path; 3@best picks a checkpoint (default: the newest run)."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="CHECKPOINT",
            help="Checkpoint to continue from: last (default), best, epoch_003 or checkpoint-100.",
        ),
    ] = None,
    from_hub: Annotated[
        str | None,
        typer.Option(
            "--from-hub",
            metavar="REPO",
            help="Pull the run from this repository on the Hub first; owner/name@best picks a checkpoint.",
        ),
    ] = None,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="Continue although the training data has changed.")
    ] = False,
    allow_changed_base: Annotated[
        bool, typer.Option("--allow-changed-base", help="Continue although the base model has changed.")
    ] = False,
    fallback: Annotated[
        str | None,
        typer.Option(
            "--fallback", metavar="new", help="new: if no checkpoint can be used, start a new run with the same settings."
        ),
    ] = None,
    json_output: SummaryOption = False,
    quiet: QuietOption = False,
    *,
    flags: dict[str, Any],
    config_files: list[str],
    env_file: Path | None,
) -> int:
    """Continue a run exactly where a checkpoint left it, even in the middle of an epoch.

    The run keeps its settings. Flags change them from this checkpoint on, and each change is printed and recorded. --epochs
    is the new total.

    Examples:

      pitstop resume
      pitstop resume 3
      pitstop resume --run-number 3 --epochs 15 --learning-rate 1e-5
      pitstop resume 3 --checkpoint best
      pitstop resume 3@epoch_002
      pitstop resume 3 --fallback new
      pitstop resume --from-hub owner/name --dataset data.jsonl
    """
    if fallback not in (None, "new"):
        raise SettingsError(f"--fallback: '{fallback}' is not one of: new.", hint="Leave it out, or give --fallback new.")
    base_dir = str(base_directory(flags.get(_BASE_DIR), env_file))
    if run is not None and _RUN_NUMBER in flags:
        raise RunError(f"Both RUN ({run}) and --run-number were given.", hint="Give one of them.")
    if _RUN_NUMBER in flags:  # of the settings in .env, which are for new runs, none counts
        run = str(_checked({_RUN_NUMBER: flags[_RUN_NUMBER]}, env_file).checkpoint.run_number)
    arguments: Sequence[str] = sys.argv[1:]
    if from_hub is not None:
        _refuse_two_runs(from_hub, run)
        run = str(pull_run(from_hub, checkpoint, Path(base_dir), env_file, quiet=quiet).run.path)
        checkpoint, arguments = None, _with_pulled_run(arguments, run)
    request = ResumeRequest(
        base_dir=base_dir,
        run=run if run is not None else newest_run(base_dir),
        checkpoint=checkpoint,
        flags={path: value for path, value in flags.items() if path not in (_BASE_DIR, _RUN_NUMBER)},
        env_file=env_file,
        allow_changed_data=allow_changed_data,
        allow_changed_base=allow_changed_base,
        fallback_new=fallback == "new",
    )
    return resume_run(request, json_output=json_output, quiet=quiet, arguments=arguments)


def _checked(flags: Mapping[str, Any], env_file: Path | None) -> TrainingSettings:
    """The settings of a training that ``flags`` give. Raises ``SettingsError`` for a value that is none."""
    return load_recorded({}, flags=flags, env_file=env_file).settings.training


def _refuse_two_runs(from_hub: str, run: str | None) -> None:
    from pitstop.trainers.machine import launch

    if run is not None:
        raise RunError(
            f"Both a run ({run}) and --from-hub {from_hub} were given.",
            hint="--from-hub makes a new run here: leave the other out, or give the run alone to continue it.",
        )
    if launch.is_worker():  # each process would pull
        raise SettingsError(
            "--from-hub cannot be given to several processes that another program started.",
            hint=f"First `pitstop pull {from_hub}`, then start the processes with the number of that run; or use --num-processes.",
        )


def _with_pulled_run(arguments: Sequence[str], run: str) -> list[str]:
    """The command line with the run that was pulled in place of its repository, for processes that are started with it."""
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        option, equals, _ = word.partition("=")
        if option not in ("--from-hub", "--checkpoint"):
            words.append(word)
        elif not equals:
            next(rest, None)
    position = words.index("resume") + 1 if "resume" in words else 0
    return [*words[:position], run, *words[position:]]


def resume_run(request: ResumeRequest, *, json_output: bool, quiet: bool, arguments: Sequence[str] | None = None) -> int:
    """Resume a run; returns the exit code. Raises ``PitstopError``.

    ``arguments`` is the command line of the processes that are started where there are to be several; this one's unless given.
    """
    from pitstop.checkpointing.runs.find import locate

    directory, _ = locate(request.base_dir, request.run)
    directory.check_made_by_train("resume", f"start that program again with run_number={directory.number}")
    early = pass_on(request.env_file)

    def training(display: Display, notices: Sequence[Notice]) -> Result:
        from pitstop.trainers.training.worker import resume as resume_training

        return resume_training(request, now=datetime.now().astimezone(), display=display, notices=notices)

    processes = _processes(directory.config(), request)
    return start_or_join(processes, training, early=early, json_output=json_output, quiet=quiet, arguments=arguments)


def newest_run(base_dir: str) -> str:
    """The path of the run that was started last. Raises ``RunError`` where there is none."""
    from pitstop.checkpointing.runs.listing import list_runs

    records = list_runs(base_dir)
    if not records:
        raise RunError(f"There is no run in {base_dir}.", hint="Start one with 'pitstop train', or point --base-dir at the runs.")
    return str(max(records, key=lambda record: record.created_at or "").path)


def _processes(config: Mapping[str, Any], request: ResumeRequest) -> int:
    """As many as the flag says or the run started with. ``CheckpointError`` where config.json holds no such number."""
    if (flag := request.flags.get(_NUM_PROCESSES)) is not None:
        return _checked({_NUM_PROCESSES: flag}, request.env_file).num_processes
    from pitstop.checkpointing.store.vetting import check_setting
    from pitstop.configs.leaves import by_path

    training = config.get("training")
    processes = training.get("num_processes", 1) if isinstance(training, dict) else 1
    check_setting(by_path()[_NUM_PROCESSES], processes, "config.json of the run")
    return int(processes)
