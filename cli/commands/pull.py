"""``pitstop pull``: get a run back from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pitstop.cli.arguments.base_dir import BaseDirOption, TokenFileOption, base_directory
from pitstop.cli.arguments.hub_client import hub_client
from pitstop.cli.terminal.output import notice, print_json, say
from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.checkpointing.hub.pull import Pulled


def pull(
    repo: Annotated[
        str, typer.Argument(metavar="REPO", help="owner/name on the Hub; owner/name@checkpoint-200 picks a checkpoint.")
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="CHECKPOINT",
            help="Checkpoint to download: last (default), best, checkpoint-200, 200 or epoch_003.",
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--run-number", metavar="N", min=1, max=999_999_999, help="Number of the run here (default: the next free one)."
        ),
    ] = None,
    base_dir: BaseDirOption = None,
    env_file: TokenFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print the result as JSON.")] = None,
) -> None:
    """Download a run with one checkpoint from the Hugging Face Hub, to resume or inspect it here.

    Every file is checked against the run's inventory and the checkpoint's manifest before it is read; unexpected files are
    refused by name. The run appears when it is complete. An interrupted pull continues where it stopped. The exit code is 5
    if it fails.

    Examples:

      pitstop pull owner/name
      pitstop pull owner/name@best
      pitstop pull owner/name --checkpoint checkpoint-200 --run-number 7
      pitstop pull owner/name --base-dir /data/runs --json
    """
    pulled = pull_run(repo, checkpoint, base_directory(base_dir, env_file), env_file, number)
    run = pulled.run
    if json_output:
        print_json(
            {
                "repo": pulled.repo,
                "commit": pulled.head,
                "run_number": run.number,
                "name": run.name,
                "path": str(run.path),
                "checkpoint": pulled.checkpoint.name,
                "step": pulled.checkpoint.step,
                "base_model": pulled.base,
            }
        )
        return
    say(f"Run {run.ref}: {run.name} in {run.path}")
    say(f"Go on with: pitstop resume {run.ref}")


def pull_run(
    repo: str, checkpoint: str | None, base_dir: Path, env_file: Path | None, number: int | None = None, *, quiet: bool = False
) -> Pulled:
    """Pull ``repo`` (perhaps with ``@checkpoint``) into ``base_dir``, telling on stderr how it goes. Raises ``PitstopError``."""
    client = hub_client(env_file)
    from pitstop.checkpointing.disk import layout
    from pitstop.checkpointing.hub.pull import pull as pull_repository
    from pitstop.checkpointing.hub.remote_repository import RemoteRepository, split_reference

    name, in_reference = split_reference(repo)
    if checkpoint is not None and in_reference is not None:
        raise SettingsError(
            f"Both {repo} and --checkpoint {checkpoint} pick a checkpoint.", hint="Leave --checkpoint or the part after @ out."
        )
    tell = (lambda line: None) if quiet else notice
    repository = RemoteRepository(client, name, tell=tell)
    return pull_repository(repository, base_dir, checkpoint or in_reference or layout.LAST, number)
