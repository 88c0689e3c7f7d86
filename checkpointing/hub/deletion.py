"""Deleting a run's repository on the Hub: only this run's, and before anything local goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.hub.client import Account, Conflict, NotThere, Offline, Unavailable
from pitstop.checkpointing.hub.remote_repository import RepositoryReader, inventory_at
from pitstop.checkpointing.runs.inventory import INVENTORY, MAX_BYTES
from pitstop.checkpointing.runs.push_records import Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, HubError, RunError


class RepositoryDeleter(RepositoryReader, Protocol):
    """The part of ``HubClient`` that deleting a repository needs."""

    def account(self) -> Account: ...
    def delete(self, repo: str) -> None: ...


def repository(run: RunDirectory) -> str | None:
    """The repository that holds something of the run; None where there is none, or where nobody knows any more."""
    try:
        return Outbox(run.path).arrived().repo
    except CheckpointError:
        return None


def repository_to_delete(run: RunDirectory) -> str:
    """As ``repository``; ``RunError`` where nothing of the run was ever pushed, ``CheckpointError`` where its records are damaged."""
    repo = Outbox(run.path).arrived().repo
    if repo is None:
        raise RunError(
            f"{run.label} was never pushed, as far as its records go: there is no repository to delete",
            hint=f"leave --hub out: pitstop delete {run.label}",
        )
    return repo


def check_not_being_pushed(run: RunDirectory) -> None:
    """``RunError`` names the process that pushes the run."""
    outbox = Outbox(run.path)
    if outbox.is_busy():
        raise locking.in_use(outbox.directory / layout.LOCK, f"the push of {run.label}")


def delete_repository(client: RepositoryDeleter, run: RunDirectory) -> bool:
    """Delete the run's repository with its history; False where it was gone already.

    Raises:
        HubError: the Hub refuses or cannot be reached, or the repository is not this run's. Nothing was deleted then,
            unless the line was cut while the Hub did it.
    """
    arrived = Outbox(run.path).arrived()
    assert arrived.repo is not None, "repository_to_delete comes first"
    repo = arrived.repo
    with _nothing_deleted(run.label):
        if _is_gone(client, repo):
            return False
        _check_is_ours(client, repo, arrived.uid)
        try:
            client.delete(repo)
        except NotThere:
            if not _is_gone(client, repo):  # it can be read by anyone, and deleted by others than us
                raise
            return False
    return True


def _is_gone(client: RepositoryDeleter, repo: str) -> bool:
    try:
        client.head(repo)
    except NotThere:
        # The Hub answers "not there" to whoever may not see a repository, too: believe it only to the one whose it is.
        account, owner = client.account(), repo.partition("/")[0]
        if owner not in (account.name, *account.organisations):
            raise HubError(
                f"{repo} is gone, or {account.name} may not see it",
                hint=f"set HF_TOKEN to a token of {owner}; or leave --hub out, which leaves the repository alone",
            ) from None
        return True
    return False


def _check_is_ours(client: RepositoryDeleter, repo: str, uid: str) -> None:
    head = client.head(repo)
    record = client.files(repo, head).get(INVENTORY)
    if record is None or record.size > MAX_BYTES:
        raise HubError(f"{repo} holds no record of a run, so nobody can tell that it is this one's", hint=_by_hand(repo))
    try:
        inventory = inventory_at(client, repo, head)
    except CheckpointError as error:
        raise HubError(error.message, hint=_by_hand(repo)) from error
    if inventory.uid != uid:
        raise HubError(f"{repo} holds another run ({inventory.name})", hint=_by_hand(repo))


def _by_hand(repo: str) -> str:
    return (
        f"look at https://huggingface.co/{repo} and delete it there if it is not needed; leave --hub out to delete the run here"
    )


@contextmanager
def _nothing_deleted(label: str) -> Iterator[None]:
    """Every failure as a ``HubError`` that says so."""
    failed = f"{label} was not deleted, here or on the Hub"
    try:
        yield
    except Offline as error:
        raise HubError(f"{failed}: {error.reason}", hint="unset HF_HUB_OFFLINE, or leave --hub out") from error
    except Unavailable as error:
        hint = "try again when it can be reached, or leave --hub out, which leaves the repository alone"
        raise HubError(f"{failed}: {error.reason}", hint=hint) from error
    except Conflict as error:
        raise HubError(f"{failed}: {error}", hint="something else writes to the repository; try again") from error
    except HubError as error:
        raise HubError(f"{failed}: {error.message}", hint=error.hint) from error
