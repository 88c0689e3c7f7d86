"""``pitstop delete``: remove a whole run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.inspection import tree_size
from pitstop.checkpointing.hub.deletion import (
    check_not_being_pushed,
    delete_repository,
    repository,
    repository_to_delete,
)
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.housekeeping import (
    delete_run,
    freed_bytes,
    left_of_deletion,
    prune_deleted,
    refuse_needed,
    unused_bases,
)
from pitstop.checkpointing.runs.push_records import Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import CheckpointStore
from pitstop.cli.arguments.base_dir import BaseDirOption, TokenFileOption, base_directory, whole_run
from pitstop.cli.arguments.hub_client import hub_client
from pitstop.cli.terminal.output import is_terminal, notice, print_json, say, warn
from pitstop.configs.errors import PitstopError, ResourceError, RunError
from pitstop.configs.shown import human_size


def delete(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run: 3, run_003, its name or path.")],
    yes: Annotated[bool | None, typer.Option("--yes", "-y", help="Delete without asking.")] = None,
    on_hub: Annotated[bool | None, typer.Option("--hub", help="Delete the run's repository on the Hub too.")] = None,
    dry_run: Annotated[bool | None, typer.Option("--dry-run", help="Print what would be freed; delete nothing.")] = None,
    base_dir: BaseDirOption = None,
    env_file: TokenFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print the result as JSON.")] = None,
) -> None:
    """Delete a run with all its checkpoints and logs; its number is free again if it was the highest.

    On a terminal a confirmation is asked for; elsewhere --yes is required. A run in use is not deleted. The base model stays,
    since other runs may share it; pitstop prune deletes base models that no run uses.

    The run's repository on the Hub stays unless --hub is given. With --hub it is deleted first, with its history, if it
    belongs to this run. If the Hub refuses or cannot be reached, nothing is deleted.

    Examples:

      pitstop delete 3 --dry-run
      pitstop delete 3
      pitstop delete 3 --hub
      pitstop delete smollm2135-train-r16-a32-e5-20260101-120000 --yes
    """
    base = base_directory(base_dir, env_file)
    directory = _find(base, run)
    if directory is None:
        content = _finish(base, run, dry_run=bool(dry_run), on_hub=bool(on_hub))
    else:
        content = _facts(directory, on_hub=bool(on_hub))
        _delete(directory, content, yes=bool(yes), dry_run=bool(dry_run), env_file=env_file)
    if json_output:
        print_json(content)
    else:
        _print(content)


def _find(base: Path, ref: str) -> RunDirectory | None:
    """The run; None when it was deleted already and only leftovers are to be removed."""
    try:
        locate(base, ref)
    except RunError:
        if left_of_deletion(base, ref):
            return None
        raise
    hint = "pitstop prune {run} --keep-last-n N thins its checkpoints; pitstop delete {run} deletes all of it"
    return whole_run(base, ref, "delete removes whole runs", hint)


def _facts(run: RunDirectory, *, on_hub: bool) -> dict[str, Any]:
    repo = repository_to_delete(run) if on_hub else repository(run)
    size = freed_bytes([run.path])
    digest = BaseModels(run.base_dir).digest_of(run.path)
    return {
        "run": run.label,
        "run_number": run.number,
        "name": run.name,
        "path": str(run.path),
        "status": run.status(),
        "checkpoints": len(CheckpointStore(layout.weights_directory(run.path)).names()),
        "dry_run": False,
        "deleted": False,
        "freed_bytes": size,
        "shared_base_bytes": tree_size(run.path) - size,
        "base_becomes_unused": digest in [item.name for item in unused_bases(run.base_dir, without=run.label)],
        "finished_earlier_deletion": False,
        "hub": {"repo": repo, "delete": on_hub, "deleted": False, "was_gone": False} if repo else None,
    }


def _delete(run: RunDirectory, content: dict[str, Any], *, yes: bool, dry_run: bool, env_file: Path | None) -> None:
    if run.is_locked():  # before anyone is asked
        raise locking.in_use(run.path / layout.LOCK, run.label)
    refuse_needed(run)
    check_not_being_pushed(run)
    if dry_run:
        content["dry_run"] = True
        return
    if not yes:
        _confirm(content)
    if content["hub"] and content["hub"]["delete"]:
        with Outbox(run.path).alone():  # a push that began now would make the repository again
            content["hub"]["deleted"] = delete_repository(hub_client(env_file), run)
            content["hub"]["was_gone"] = not content["hub"]["deleted"]
            _delete_locally(run, content)
    else:
        _delete_locally(run, content)
    _tidy(run.base_dir)


def _delete_locally(run: RunDirectory, content: dict[str, Any]) -> None:
    try:
        content["freed_bytes"] = delete_run(run)
    except PitstopError:
        if content["hub"] and content["hub"]["deleted"]:
            warn(f"{content['hub']['repo']} on the Hub is deleted; the run here is not")
        raise
    content["deleted"] = True


def _confirm(content: Mapping[str, Any]) -> None:
    run, hub = content["run"], content["hub"]
    repo = hub["repo"] if hub and hub["delete"] else None
    if not is_terminal(sys.stdin):
        command = f"pitstop delete {run}{' --hub' if repo else ''} --yes"
        raise RunError(
            f"{run} was not deleted: there is no terminal to ask for confirmation",
            hint=f"{command} deletes it without asking; --dry-run says what that frees",
        )
    notice(f"{run}  {content['name']}  {content['status']}")
    notice(f"  {content['checkpoints']} checkpoints and logs, {human_size(content['freed_bytes'])}, in {content['path']}")
    if repo:
        notice(f"  the repository {repo} on the Hub, with its history")
    if not typer.confirm(f"Delete {run}{f' and {repo} on the Hub' if repo else ''} for good?", err=True):
        raise RunError(f"{run} was not deleted", hint="answer y to delete it")


def _tidy(base: Path) -> None:
    """What earlier deletions left goes too; should it refuse, that is no failure of this one."""
    try:
        outcome = prune_deleted(base)
    except RunError as error:
        warn(error.message)
        return
    for _, reason in outcome.failed:
        warn(f"{reason}; `pitstop prune` tries again")


def _finish(base: Path, ref: str, *, dry_run: bool, on_hub: bool) -> dict[str, Any]:
    """Remove what an earlier deletion of the run did not come to."""
    if on_hub:
        raise RunError(
            f"{ref} was deleted already, and with it what was known of its repository",
            hint=f"delete the repository on https://huggingface.co; pitstop delete {ref} removes what is left here",
        )
    outcome = prune_deleted(base, dry_run=dry_run)
    if outcome.failed:
        reasons = "; ".join(reason for _, reason in outcome.failed)
        raise ResourceError(reasons, hint="`pitstop prune` tries again; check the permissions and the disk first")
    return {
        "run": ref,
        "run_number": None,
        "name": None,
        "path": None,
        "status": None,
        "checkpoints": 0,
        "dry_run": dry_run,
        "deleted": not dry_run,
        "freed_bytes": outcome.size,
        "shared_base_bytes": 0,
        "base_becomes_unused": False,
        "finished_earlier_deletion": True,
        "hub": None,
    }


def _print(content: Mapping[str, Any]) -> None:
    freed, run = human_size(content["freed_bytes"]), content["run"]
    if content["finished_earlier_deletion"]:
        does = "would be" if content["dry_run"] else "is"
        say(f"{run} was deleted already; what was left of that {does} removed: {freed}")
        return
    if content["dry_run"]:
        say(f"{run}  {content['name']}  {content['status']}")
        say(f"would free {freed}: {content['checkpoints']} checkpoints and logs in {content['path']}")
    else:
        say(f"deleted {run} ({content['name']}): freed {freed}")
    _print_hub(content["hub"], dry_run=content["dry_run"])
    if content["base_becomes_unused"]:
        size = f" ({human_size(content['shared_base_bytes'])})" if content["shared_base_bytes"] else ""
        say(f"its base model{size} stays; no other run uses it: `pitstop prune` frees it")
    elif content["shared_base_bytes"]:
        say(f"its base model ({human_size(content['shared_base_bytes'])}) stays: other runs share it")


def _print_hub(hub: Mapping[str, Any] | None, *, dry_run: bool) -> None:
    if hub is None:
        return
    if not hub["delete"]:
        fate = "stays on the Hub"
    elif dry_run:
        fate = "would be deleted on the Hub, with its history"
    else:
        fate = "was gone from the Hub already" if hub["was_gone"] else "is deleted on the Hub"
    say(f"its repository {hub['repo']} {fate}")
