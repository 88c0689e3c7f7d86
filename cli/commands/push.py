"""``pitstop push``: bring what a run has to the Hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.cli.arguments.base_dir import BaseDirOption, TokenFileOption, base_directory, whole_run
from pitstop.cli.arguments.hub_client import hub_client
from pitstop.cli.terminal.output import notice, print_json, say, warn
from pitstop.configs.errors import HubError, PitstopError, SettingsError


def push(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="A run: 3, run_003, its name or path.")] = None,
    everything: Annotated[
        bool | None, typer.Option("--all", help="Push what is missing on the Hub, for every run that is pushed.")
    ] = None,
    hub_repo: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="Repository as owner/name (default: the run's present one, else the account and the run's name).",
        ),
    ] = None,
    public: Annotated[bool | None, typer.Option("--public", help="Create the repository as a public one.")] = None,
    push_base: Annotated[bool | None, typer.Option("--push-base", help="Push the frozen base model too.")] = None,
    hub_keep_last_n: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Checkpoints kept on the Hub beside the best one (default: all).")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Give up after this long without a successful commit.")
    ] = 600.0,
    base_dir: BaseDirOption = None,
    env_file: TokenFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print the result as JSON.")] = None,
) -> int:
    """Push a run's checkpoints to the Hub.

    Each checkpoint is one commit, oldest first. Checkpoints that are on the Hub already are not sent again. A missing
    repository is created, private unless --public is given. When the run is resumed, its new checkpoints are pushed too.

    Examples:

      pitstop push 3
      pitstop push 3 --hub-repo my-org/medical-ner
      pitstop push --all
    """
    if (run is None) == (not everything):
        raise SettingsError("Which run?", hint="Give one (pitstop push 3), or --all for every run that is to be pushed.")
    if everything and hub_repo is not None:
        raise SettingsError("--hub-repo names one repository, --all means several.", hint="Push that run by itself.")
    base = base_directory(base_dir, env_file)
    flags = {"repo": hub_repo, "private": False if public else None, "push_base": push_base, "keep_last_n": hub_keep_last_n}
    runs = list(_runs_to_push(base)) if everything else [whole_run(base, str(run), "push takes whole runs", "pitstop push {run}")]
    client = hub_client(env_file)
    tell = notice if json_output else say
    results = [push_run(directory, flags, client, timeout, tell, keep_going=bool(everything)) for directory in runs]
    if json_output:
        print_json(results if everything else results[0])
    elif everything and not runs:
        notice("no run here is to be pushed; pitstop push RUN pushes one")
    return HubError.exit_code if any(result["problem"] for result in results) else 0


def _runs_to_push(base: Path) -> Iterator[RunDirectory]:
    for record in list_runs(base):
        run = RunDirectory(Path(record.path))
        try:
            if Outbox(run.path).destination() is not None and run.store.list():
                yield run
        except PitstopError:
            yield run  # damaged records: the push says so


def push_run(
    run: RunDirectory, flags: Mapping[str, Any], client: Any, timeout: float, tell: Callable[[str], None], *, keep_going: bool
) -> dict[str, Any]:
    """Push one run. With ``keep_going`` an error is told and returned, so that the other runs have their turn."""
    result: dict[str, Any] = {"run": run.label, "repo": None, "commits": 0, "left": [], "problem": None}
    try:
        _push_to_end(run, flags, client, timeout, result)
    except PitstopError as error:
        if not keep_going:
            raise
        warn(error.message if run.label in error.message else f"{run.label}: {error.message}", error.hint)
        return {**result, "problem": error.message}
    tell(f"{run.label} is on the Hub: {result['repo']}" + ("" if result["commits"] else " (all was there already)"))
    return result


def _push_to_end(run: RunDirectory, flags: Mapping[str, Any], client: Any, timeout: float, result: dict[str, Any]) -> None:
    """Push one run and record in ``result`` what was pushed. Raises ``HubError`` where something is left."""
    run.check_made_by_train("push", "upload the directory of a checkpoint with `hf upload`; it is an ordinary adapter or model")
    from huggingface_hub import is_offline_mode

    from pitstop.checkpointing.hub.contents import check_pushable
    from pitstop.checkpointing.hub.pacing import Backoff
    from pitstop.checkpointing.hub.pump import pump
    from pitstop.checkpointing.hub.uploader import Pacing, Uploader
    from pitstop.configs.load import load_recorded

    hub = load_recorded(run.settings(), f"{run.label}/config.json").settings.hub
    check_pushable(run)
    box = Outbox(run.path)
    with box.alone():
        # Flags override where the run goes already, which overrides its settings.
        changes = {key: value for key, value in flags.items() if value is not None}
        box.open(replace(box.destination() or Destination.of(hub), **changes))
        uploader = Uploader(run, client, Pacing(hub.retry_s, hub.commits_per_hour))
        progress = _Progress(run, timeout)
        complete = pump(uploader, Backoff(hub.retry_s), progress, progress)
        missing = retention.unpushed(run)
        result.update(repo=uploader.arrived.repo, commits=progress.commits, left=missing)
    if not complete and progress.problem is None:
        progress.problem = f"the Hub could not be reached ({progress.last_trouble})"
        if is_offline_mode():
            progress.problem, progress.hint = progress.last_trouble, "unset HF_HUB_OFFLINE"
    if progress.problem is not None:
        rest = (
            f"{len(missing)} checkpoints, {missing[0]} to {missing[-1]}"
            if len(missing) > 1
            else "".join(missing) or "the records"
        )
        raise HubError(f"{run.label} is not on the Hub: {progress.problem} (left: {rest})", hint=progress.hint)


class _Progress:
    """Reports each commit, and gives up after ``timeout`` seconds without one."""

    def __init__(self, run: RunDirectory, timeout: float) -> None:
        self.run, self.timeout = run, timeout
        self.commits = 0
        self.problem: str | None = None
        self.hint: str | None = f"pitstop push {run.label} goes on where this ended"
        self.last_trouble = ""
        self.ending = True
        self.finished = run.readable_metadata().has_ended
        self._last_success = time.monotonic()

    def pushed(self, commit: Any) -> None:
        """A commit went through."""
        self.commits += 1
        self._last_success = time.monotonic()
        target = f" to {commit.repo}" if self.commits == 1 else ""
        notice(f"pushed {commit.description}{target} ({commit.commit[:7]})")

    def trouble(self, reason: str, wait_s: float) -> None:
        """A try failed."""
        self.last_trouble = reason
        if wait_s:
            notice(f"{reason}; trying again in {wait_s:.0f} s")

    def spoilt(self, error: PitstopError) -> None:
        """A checkpoint is left out; the others go on."""
        self.problem, self.hint = error.message, error.hint

    def stopped(self, error: PitstopError) -> None:
        """Pushing has ended for good."""
        self.problem, self.hint = error.message, error.hint or self.hint

    def wait(self, seconds: float | None) -> bool:
        """Pass the time, unless that is over."""
        remaining = self._last_success + self.timeout - time.monotonic()
        if seconds is None or remaining <= 0:
            return False
        time.sleep(min(seconds, remaining))
        return True
