"""What tests have huggingface_hub itself do, in a process with the environment for it: see ``distant``."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def whoami() -> dict[str, Any]:
    """The account of the token."""
    from huggingface_hub import HfApi

    return HfApi().whoami()


def create(repo: str, *, private: bool = True) -> None:
    """Make a repository, or find it there."""
    from huggingface_hub import HfApi

    HfApi().create_repo(repo, private=private, exist_ok=True)


def push(
    repo: str, directory: Path, to: str, message: str = "step", parent: str | None = None, token: str | bool | None = None
) -> str:
    """Upload a directory in one commit, which the library does not try twice; returns the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(f"{to}/{file.name}", file) for file in sorted(directory.iterdir())]
    return str(HfApi(token=token).create_commit(repo, operations, commit_message=message, parent_commit=parent).oid)


def pull(repo: str, directory: Path, revision: str = "main") -> None:
    """Download a whole repository."""
    from huggingface_hub import snapshot_download

    snapshot_download(repo, revision=revision, local_dir=directory)


def files(repo: str, revision: str = "main") -> list[str]:
    """Every path."""
    from huggingface_hub import HfApi

    return HfApi().list_repo_files(repo, revision=revision)


def commits(repo: str) -> list[str]:
    """The titles of the commits, newest first."""
    from huggingface_hub import HfApi

    return [commit.title for commit in HfApi().list_repo_commits(repo)]


def remove_folder(repo: str, path: str) -> None:
    """Delete a directory in one commit."""
    from huggingface_hub import HfApi

    HfApi().delete_folder(path, repo)


def push_data(repo: str, files: dict[str, str]) -> str:
    """Make a data set, or add to it in one commit; returns the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    api.create_repo(repo, repo_type="dataset", exist_ok=True)
    operations = [CommitOperationAdd(name, content.encode()) for name, content in files.items()]
    return str(api.create_commit(repo, operations, commit_message="data", repo_type="dataset").oid)


def records(spec: str, split: str) -> list[dict[str, Any]]:
    """The records of a ``--dataset`` value, as Pitstop reads them."""
    from pitstop.trainers.data.files.places import read_records
    from pitstop.trainers.data.records import BadRows

    return [record.fields for record in read_records(spec, BadRows(skip=False), split=split)]
