from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.hub.client import Offline, RemoteFile, Unavailable
from pitstop.checkpointing.hub.remote_repository import Patience, RemoteRepository, split_reference
from pitstop.configs.errors import HubError, ResourceError

REPO = "owner/a-run"


class Flaky:
    """A client whose calls raise ``errors``, one after the other, before they succeed."""

    def __init__(self, errors: Iterator[Exception]) -> None:
        self.errors = errors
        self.commits: list[str] = []

    def head(self, repo: str, revision: str = "main") -> str:
        for error in self.errors:
            raise error
        return "c" * 40

    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]:
        self.commits.append(commit)
        return {"README.md": RemoteFile(3, "0" * 40, None)}

    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path:
        self.commits.append(commit)
        return directory / path


def looked(*errors: Exception, **options: Any) -> tuple[RemoteRepository, list[float]]:
    """A repository that was looked at, and the pauses that this took."""
    pauses: list[float] = []
    repository = RemoteRepository(Flaky(iter(errors)), REPO, patience=Patience(sleep=pauses.append), **options)
    repository.look()
    return repository, pauses


def test_everything_is_read_from_the_commit_that_was_looked_at(tmp_path: Path) -> None:
    client = Flaky(iter(()))
    repository = RemoteRepository(client, REPO)
    repository.look()
    repository.download("README.md", tmp_path)
    assert (repository.head, list(repository.files)) == ("c" * 40, ["README.md"])
    assert client.commits == ["c" * 40] * 2


def test_pauses_double_and_are_never_shorter_than_the_hub_asks_for() -> None:
    lines: list[str] = []
    _, pauses = looked(Unavailable("503"), Unavailable("429", 55), Unavailable("503"), tell=lines.append)
    assert pauses == [2, 55, 8]
    assert lines[0] == "the Hub fails (503); next try in 2 s"


def test_patience_ends_with_the_reason() -> None:
    with pytest.raises(HubError, match=r"owner/a-run cannot be pulled: 503"):
        looked(*[Unavailable("503", 100)] * 3)


@pytest.mark.parametrize(("error", "kind"), [(Offline("HF_HUB_OFFLINE is set"), HubError), ("full", ResourceError)])
def test_what_waiting_does_not_change_is_raised_at_once(error: Exception | str, kind: type[Exception]) -> None:
    unavailable = error if isinstance(error, Exception) else Unavailable("no room")
    if not isinstance(error, Exception):
        unavailable.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(kind):
        looked(unavailable)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("a/b", ("a/b", None)), ("a/b@best", ("a/b", "best")), ("gpt2", ("gpt2", None)), (" a/b-1.0@200 ", ("a/b-1.0", "200"))],
)
def test_a_reference_names_a_repository_and_perhaps_a_checkpoint(text: str, meant: tuple[str, str | None]) -> None:
    assert split_reference(text) == meant


@pytest.mark.parametrize(
    "text", ["", "a/b@", "../b", "a/../b", "a/b/c", "/etc/passwd", "a b", "a/..", "https://huggingface.co/a/b"]
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(HubError, match="names no repository"):
        split_reference(text)


def test_only_a_repository_id_can_be_read() -> None:
    with pytest.raises(HubError, match="names no repository"):
        RemoteRepository(Flaky(iter(())), "../elsewhere")
