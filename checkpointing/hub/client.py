"""What Pitstop asks of the Hub, through huggingface_hub, with every failure sorted into what to do about it.

The only module that imports huggingface_hub, and it does so late: the library reads its environment once, at import.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.configs.errors import HubError, first_line
from pitstop.configs.secrets import mask, remember

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAX_WAIT_S = 300.0
"""No server makes us wait longer than this between two requests, whatever its ``Retry-After`` says."""

CONNECT_TIMEOUT_S = 20.0
STALL_TIMEOUT_S = 120.0
"""A connection on which nothing moves for so long is given up; the library itself would wait for ever."""

_RETRIED = {408, 409, 423, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_SHA = re.compile(r"[0-9a-f]{40}")
_TOKEN_ADVICE = "make a token with write access on https://huggingface.co/settings/tokens and set HF_TOKEN to it"  # noqa: S105


class Unavailable(Exception):  # noqa: N818 - a state, which passes
    """The Hub cannot be reached, is overloaded or cut the line: try again later. ``wait_s`` is what it asked for, capped."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s


class Offline(Unavailable):
    """HF_HUB_OFFLINE forbids every request."""


class Conflict(Exception):  # noqa: N818
    """The branch is no longer at the commit that was built upon."""


class Refused(HubError):
    """The Hub says no, and will say so again: no token, no permission, no room."""


class NotThere(HubError):
    """There is no such repository, revision or file, or the token may not see it."""


@dataclass(frozen=True)
class Account:
    """Whom the token belongs to. ``can_write`` is None where only a try can tell (fine-grained tokens)."""

    name: str
    organisations: tuple[str, ...]
    can_write: bool | None


@dataclass(frozen=True)
class RemoteFile:
    """A file at one commit: ``size`` in bytes; ``oid`` is git's blob SHA-1, ``sha256`` is there for large files."""

    size: int
    oid: str
    sha256: str | None


class HubClient:
    """Calls on the Hub. All raise ``Unavailable``, ``Refused`` or ``NotThere``; ``commit`` also ``Conflict``.

    ``token`` None lets the library look for one: HF_TOKEN, then the client's own login.
    """

    def __init__(self, token: str | None = None) -> None:
        self._token = token
        self._cached: HfApi | None = None

    @property
    def _api(self) -> HfApi:
        if self._cached is None:
            from huggingface_hub import HfApi, get_token
            from huggingface_hub.utils import disable_progress_bars

            _bound_waits()
            disable_progress_bars()
            token = self._token or get_token()
            if token:
                remember(token)
            self._cached = HfApi(token=token or False)
        return self._cached

    def account(self) -> Account:
        """Who we are. ``Refused`` without a token, or with one that the Hub does not know."""
        with _sorted_out("the Hub"):
            if not self._api.token:
                raise Refused("there is no Hub token", hint=f"{_TOKEN_ADVICE}, or log in with `hf auth login`")
            answer = self._api.whoami()
        token = (answer.get("auth") or {}).get("accessToken") or {}
        role = token.get("role")
        can_write = {"write": True, "read": False}.get(role)
        organisations = tuple(str(org.get("name")) for org in answer.get("orgs") or [])
        return Account(str(answer["name"]), organisations, can_write)

    def create(self, repo: str, *, private: bool) -> bool:
        """Make the repository; False when there is one of this name already."""
        with _sorted_out(repo, creating=True):
            try:
                self._api.create_repo(repo, private=private)
            except OSError as error:
                if _status(error) == 409 and "already" in str(error).lower():
                    return False
                raise
        return True

    def head(self, repo: str, revision: str = "main") -> str:
        """The commit that ``revision`` (a branch, a tag or a commit) stands at now; 40 hexadecimal digits."""
        with _sorted_out(repo):
            sha = self._api.model_info(repo, revision=revision).sha
        if sha is None or not _SHA.fullmatch(sha):
            raise Unavailable(f"{repo}: the Hub's answer names no commit")
        return sha

    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]:
        """Every file at a commit, by its path."""
        from huggingface_hub.hf_api import RepoFile

        with _sorted_out(repo):
            entries = [entry for entry in self._api.list_repo_tree(repo, recursive=True, revision=commit)]
        found: dict[str, RemoteFile] = {}
        for entry in entries:
            if isinstance(entry, RepoFile):
                lfs = entry.lfs.sha256 if entry.lfs is not None else None
                found[entry.path] = RemoteFile(int(entry.size), entry.blob_id, lfs)
        return found

    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path:
        """Fetch one file of a commit into ``directory`` under its path; what lay there is checked anew."""
        from huggingface_hub import hf_hub_download

        with _sorted_out(repo):
            return Path(hf_hub_download(repo, path, revision=commit, local_dir=directory, token=self._api.token))

    def upload(self, repo: str, files: Mapping[str, Path | bytes]) -> list[Any]:
        """Send the large ones of ``files`` (path in the repository → content), so that ``commit`` only names them.

        Content that the repository has, under whatever path, is not sent again. Give what this returns to ``commit``.
        """
        from huggingface_hub import CommitOperationAdd

        additions = [CommitOperationAdd(path, content) for path, content in files.items()]
        once = {addition.upload_info.sha256: addition for addition in additions}
        with _sorted_out(repo, writing=True):
            self._api.preupload_lfs_files(repo, list(once.values()))
            self._api.preupload_lfs_files(repo, [addition for addition in additions if addition not in once.values()])
        return additions

    def commit(self, repo: str, additions: Sequence[Any], deletions: Sequence[str], message: str, parent: str) -> str:
        """Add and delete in one commit on ``parent``; returns the new commit. ``deletions`` are directories.

        ``Conflict`` when the branch has moved on. After ``Unavailable`` nobody knows whether it went through.
        """
        from huggingface_hub import CommitOperationDelete

        operations = [*additions, *(CommitOperationDelete(f"{path}/", is_folder=True) for path in deletions)]
        with _sorted_out(repo, writing=True):
            return str(self._api.create_commit(repo, operations, commit_message=message, parent_commit=parent).oid)

    def delete(self, repo: str) -> None:
        """Delete the repository with its history."""
        with _sorted_out(repo, writing=True):
            self._api.delete_repo(repo)


def _bound_waits() -> None:
    """Have the library give up dead connections, and believe no ``Retry-After`` of hours."""
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import hf_request_event_hook

    def cap(response: httpx2.Response) -> None:
        wait = _wanted_wait(response.headers)
        if wait is not None:
            response.headers.pop("RateLimit", None)
            response.headers["Retry-After"] = str(int(wait))

    def make() -> httpx2.Client:
        timeout = httpx2.Timeout(STALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        hooks = {"request": [hf_request_event_hook], "response": [cap]}
        return httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=timeout)

    set_client_factory(make)


def _wanted_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks us to wait, at most ``MAX_WAIT_S``."""
    limit = re.search(r"\br=0\b.*\bt=(\d+)", headers.get("RateLimit", ""))
    text = limit[1] if limit else headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT_S) if text.isdigit() else None


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


@contextmanager
def _sorted_out(what: str, *, writing: bool = False, creating: bool = False) -> Iterator[None]:
    """Turn whatever the library raises into one of our four kinds."""
    import httpx2
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except (Unavailable, HubError, Conflict):
        raise
    except OfflineModeIsEnabled:
        raise Offline("HF_HUB_OFFLINE is set") from None
    except LocalEntryNotFoundError as error:  # how a download tells that it could not even ask for the file
        if isinstance(error.__cause__, OfflineModeIsEnabled):
            raise Offline("HF_HUB_OFFLINE is set") from None
        raise Unavailable(_said(error.__cause__ or error)) from error
    except HFValidationError as error:
        raise Refused(f"{what!r} is no repository id", hint="it reads owner/name") from error
    except httpx2.TransportError as error:
        raise Unavailable(f"{type(error).__name__}: {_said(error)}") from error
    except Exception as error:
        status = _status(error)
        if status is None:
            if isinstance(error, (EntryNotFoundError, FileNotFoundError)):
                raise NotThere(f"{what}: {_said(error)}") from error
            if isinstance(error, (OSError, RuntimeError)):  # the Xet client raises these for its own connections
                raise Unavailable(_said(error)) from error
            if isinstance(error, ValueError) and writing:  # an object that the LFS server refuses
                raise Unavailable(_said(error)) from error
            raise
        _raise_for(what, status, error, missing=isinstance(error, (EntryNotFoundError, RepositoryNotFoundError)), creating=creating)


def _raise_for(what: str, status: int, error: Exception, *, missing: bool, creating: bool) -> None:
    said = _said(error)
    if status == 412:
        raise Conflict(said) from error
    if status in _RETRIED or status >= 500:
        headers = getattr(getattr(error, "response", None), "headers", {})
        raise Unavailable(f"the Hub answered {status}", _wanted_wait(headers)) from error
    if status == 401 and not missing:
        raise Refused(f"the Hub does not accept the token ({said})", hint=_TOKEN_ADVICE) from error
    if status == 403:
        place = f"make {what}" if creating else f"write to {what}"
        hint = f"the token may lack write access, or the account is not yours to write to: {_TOKEN_ADVICE}"
        raise Refused(f"the token may not {place} ({said})", hint=hint) from error
    if status == 402:
        raise Refused(f"the account's storage or plan does not allow it ({said})", hint="see the billing page of the account") from error
    if missing or status in (401, 404):
        hint = "check the name; a private repository needs a token of an account that may see it"
        raise NotThere(f"{what} is not on the Hub, or the token may not see it ({said})", hint=hint) from error
    raise Refused(f"the Hub refused: {said}") from error


def _said(error: BaseException) -> str:
    """What the server or library said, without the addresses and request ids around it."""
    message = getattr(error, "server_message", None) or first_line(error)
    return mask(str(message))[:300]
