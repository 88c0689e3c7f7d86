"""What Pitstop asks of the Hub, through huggingface_hub, with every failure sorted into what to do about it.

The only module that imports huggingface_hub, and it does so late: the library reads its environment once, at import.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.configs.errors import CheckpointError, HubError, PitstopError, first_line, is_disk_full
from pitstop.configs.secrets import mask, remember

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

MAX_WAIT_S = 300.0
"""No server makes us wait longer than this between two requests, whatever its ``Retry-After`` says."""

CONNECT_TIMEOUT_S = 20.0
STALL_TIMEOUT_S = 120.0
"""A connection on which nothing moves for so long is given up; the library itself would wait for ever."""

PATIENCE_S = 10.0
"""A storage behind the Hub that wants us to wait longer counts as unavailable; the library would sleep as long as it is told."""

_RETRIED = {408, 409, 423, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
_SHA = re.compile(r"[0-9a-f]{40}")
_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
_NOTHING_IGNORED = "# every file is meant\n"  # instead of a .gitignore in the repository, which would leave files out silently
_LONGEST = 300  # of a server's own message
_TOKEN_ADVICE = "make a token with write access on https://huggingface.co/settings/tokens and set HF_TOKEN to it"
_OWNER_ADVICE = f"{_TOKEN_ADVICE}; the owner must be you or an organisation of yours"


class Unavailable(Exception):
    """The Hub cannot be reached, is overloaded or cut the line: try again later. ``wait_s`` is what it asked for, capped."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s


class Offline(Unavailable):
    """HF_HUB_OFFLINE forbids every request."""


class Conflict(Exception):
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

    No call is tried again here: whoever calls knows how long it may take. Only the storages behind the Hub, where a try
    may cost gigabytes, get some further ones, for less than a minute.

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

            _use_our_http()
            disable_progress_bars()
            token = self._token or get_token()
            if token:
                remember(token)
            self._cached = HfApi(token=token or False)
        return self._cached

    def account(self) -> Account:
        """Who we are. ``Refused`` without a token, or with one that the Hub does not know."""
        with _classified("the Hub"):
            self._require_token()
            answer = self._api.whoami()
        token = (answer.get("auth") or {}).get("accessToken") or {}
        can_write = {"write": True, "read": False}.get(str(token.get("role")))
        organisations = tuple(str(org.get("name")) for org in answer.get("orgs") or [])
        return Account(str(answer["name"]), organisations, can_write)

    def _require_token(self) -> None:
        if not self._api.token:
            raise Refused("there is no Hub token", hint=f"{_TOKEN_ADVICE}, or log in with `hf auth login`")

    def create(self, repo: str, *, private: bool) -> bool:
        """Make the repository; False when there is one of this name already."""
        with _classified(repo, doing="make"):
            if repo.count("/") != 1:  # the Hub would make one of the account's, which no other call finds by this name
                raise _no_id(repo)
            self._require_token()
            try:
                self._api.create_repo(repo, private=private)
            except OSError as error:
                if _status(error) == 409:
                    return False
                raise
        return True

    def head(self, repo: str, revision: str = "main") -> str:
        """The commit that ``revision`` (a branch, a tag or a commit) stands at now; 40 hexadecimal digits."""
        with _classified(f"{repo} at {revision}"):
            sha = self._api.model_info(repo, revision=revision).sha
        if sha is None or not _SHA.fullmatch(sha):
            raise Unavailable(f"{repo}: the Hub's answer names no commit")
        return str(sha)

    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]:
        """Every file at a commit, by its path."""
        from huggingface_hub.hf_api import RepoFile

        with _classified(f"{repo} at {commit}"):
            entries = list(self._api.list_repo_tree(repo, recursive=True, revision=commit))
        files: dict[str, RemoteFile] = {}
        for entry in entries:
            if isinstance(entry, RepoFile):
                lfs = entry.lfs.sha256 if entry.lfs is not None else None
                files[entry.path] = RemoteFile(int(entry.size), entry.blob_id, lfs)
        return files

    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path:
        """Fetch one file of a commit into ``directory`` under its path.

        The library may trust a file that an earlier call left there: check what matters. What a failed call had of a file
        is lost. ``OSError`` when it cannot be stored.
        """
        from huggingface_hub import hf_hub_download

        with _classified(f"{repo}/{path}"):
            return Path(hf_hub_download(repo, path, revision=commit, local_dir=directory, token=self._api.token))

    def upload(self, repo: str, files: Mapping[str, Path | bytes], hashes: Mapping[str, str]) -> list[Any]:
        """Send the large ones of ``files`` (path in the repository → content), so that ``commit`` only names them.

        Content that the repository has, under whatever path, is not sent again. Give what this returns to ``commit``.
        ``hashes`` holds the SHA-256 that a file must have: ``CheckpointError`` names one that has another, or that
        cannot be read.
        """
        with _classified(repo, doing="write to"):
            self._require_token()
            try:
                additions = checked_additions(files, hashes)
            except OSError as error:
                raise _unreadable(error) from error
            try:
                for batch in _without_repeats(additions):
                    self._api.preupload_lfs_files(repo, batch, gitignore_content=_NOTHING_IGNORED)
            except Exception as error:
                cause = _cause(error)
                if _is_local(cause):
                    raise _unreadable(cause) from error
                if type(cause) is ValueError:  # the storage's word on one object; it may well take it another time
                    raise Unavailable(_message(cause)) from error
                raise
        return additions

    def commit(self, repo: str, additions: Sequence[Any], deletions: Sequence[str], message: str, parent: str) -> str:
        """Add and delete in one commit on ``parent``; returns the new commit. ``deletions`` are directories.

        ``Conflict`` when the branch has moved on. After ``Unavailable`` nobody knows whether it went through.
        """
        from huggingface_hub import CommitOperationDelete

        # Deletions first: a directory that is replaced must lose the files that its new content does not have.
        operations = [*(CommitOperationDelete(f"{path}/", is_folder=True) for path in deletions), *additions]
        with _classified(repo, doing="write to"):
            self._require_token()
            return str(self._api.create_commit(repo, operations, commit_message=message, parent_commit=parent).oid)

    def delete(self, repo: str) -> None:
        """Delete the repository with its history."""
        with _classified(repo, doing="delete"):
            self._require_token()
            self._api.delete_repo(repo)


def checked_additions(files: Mapping[str, Path | bytes], hashes: Mapping[str, str]) -> list[Any]:
    """The library's operations that add ``files``, each read and hashed. ``CheckpointError`` names one that is not as in ``hashes``."""
    from huggingface_hub import CommitOperationAdd

    additions = []
    for path, content in files.items():
        if isinstance(content, Path):
            content.stat()  # the library has no error of its own for a file that is gone
        addition = CommitOperationAdd(path, content)
        if path in hashes and addition.upload_info.sha256.hex() != hashes[path]:
            raise CheckpointError(f"{path} changed since it was saved (its SHA-256 differs)")
        additions.append(addition)
    return additions


def _unreadable(error: BaseException) -> CheckpointError:
    return CheckpointError(f"a file to be pushed cannot be read: {error}")


def _without_repeats(additions: Sequence[Any]) -> Iterator[list[Any]]:
    """First one file of each content, then the others: the storage has theirs by then, and the library sends nothing."""
    first: dict[bytes, Any] = {}
    repeats = [addition for addition in additions if first.setdefault(addition.upload_info.sha256, addition) is not addition]
    yield list(first.values())
    if repeats:
        yield repeats


def _use_our_http() -> None:
    """Have the library give up dead connections, and leave it to our callers when to try again."""
    import httpx2
    from huggingface_hub import constants, get_session, set_client_factory

    hub = httpx2.URL(constants.ENDPOINT).netloc

    class PromptClient(httpx2.Client):
        def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            is_hub = request.url.netloc == hub
            try:
                response = super().send(request, **options)
            except httpx2.TransportError as error:
                if is_hub:
                    raise Unavailable(f"{type(error).__name__}: {_message(error)}") from error
                raise
            if _is_unavailable(response, is_hub):
                response.close()
                message = response.headers.get("X-Error-Message", "")
                reason = f"the Hub answered {response.status_code}" + (f" ({mask(message)[:_LONGEST]})" if message else "")
                raise Unavailable(reason, _requested_wait(response.headers))
            return response

    def make() -> httpx2.Client:
        timeout = httpx2.Timeout(STALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        return PromptClient(event_hooks=hooks, follow_redirects=True, timeout=timeout)

    hooks = get_session().event_hooks  # the library's own, which keep to HF_HUB_OFFLINE
    set_client_factory(make)


def _is_unavailable(response: httpx2.Response, is_hub: bool) -> bool:
    """Whether to give up on an answer that the library would wait for and ask again."""
    if response.status_code == 409:  # something exists already; but here the library would ask again without a pause
        return is_hub and "application/json" in response.headers.get("Content-Type", "") and b"conflicting op" in response.read()
    if not _is_retried(response.status_code):
        return False
    return is_hub or (_requested_wait(response.headers) or 0.0) > PATIENCE_S


def _is_retried(status: int) -> bool:
    return status in _RETRIED or status >= 500


def _requested_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks us to wait, at most ``MAX_WAIT_S``."""
    limit = re.search(r"\br=0\b.*\bt=(\d+)", headers.get("RateLimit", ""))
    text = limit[1] if limit else headers.get("Retry-After", "").strip()
    return min(float(text), MAX_WAIT_S) if text.isdecimal() else None


def _status(error: BaseException) -> int | None:
    """The status of the answer that made the error; the Xet client has it only in its text."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    xet_status = _XET_STATUS.search(str(error)) if isinstance(error, ConnectionError) else None
    return int(xet_status[1]) if xet_status else None


def _cause(error: BaseException) -> BaseException:
    """What really went wrong: the library wraps it where it sends several files, or looks whether it has a file already."""
    while error.__cause__ is not None and _status(error) is None and not isinstance(error, (Unavailable, PitstopError)):
        error = error.__cause__
    return error


def _is_local(error: BaseException) -> bool:
    """Whether the error is this machine's: a file or a disk, not a connection."""
    if _status(error) is not None or isinstance(error, (ConnectionError, TimeoutError, Unavailable, PitstopError)):
        return False
    return is_disk_full(error) or (isinstance(error, OSError) and error.errno is not None)


@contextmanager
def _classified(target: str, *, doing: str = "read") -> Iterator[None]:
    """Turn whatever the library raises into one of our four kinds; errors of this machine stay what they are."""
    from huggingface_hub import is_offline_mode

    if is_offline_mode():  # a download would look for files that it has, and say that there are none
        raise Offline("HF_HUB_OFFLINE is set")
    try:
        yield
    except (Unavailable, Conflict, PitstopError):
        raise
    except Exception as error:
        cause = _cause(error)
        classified = _classify(cause, target, doing)
        if classified is error:
            raise
        raise classified from (None if classified is cause else error)


def _classify(error: BaseException, target: str, doing: str) -> BaseException:
    import httpx2
    from huggingface_hub.errors import HFValidationError

    status = _status(error)
    if isinstance(error, (Unavailable, PitstopError)) or _is_local(error):
        return error
    if status is not None:
        return _for_status(status, error, target, doing)
    if isinstance(error, HFValidationError):
        return _no_id(target)
    if isinstance(error, httpx2.RequestError):
        return Unavailable(f"{type(error).__name__}: {_message(error)}")
    if isinstance(error, (OSError, RuntimeError)):  # the Xet client's
        return Unavailable(_message(error))
    if isinstance(error, (json.JSONDecodeError, KeyError)):  # whoever answers, it is not the Hub: a captive portal, say
        return Unavailable(f"the Hub's answer makes no sense ({type(error).__name__}: {_message(error)})")
    return error


def _no_id(repo: str) -> Refused:
    return Refused(f"{repo!r} is not a repository id", hint="write it as owner/name")


def _for_status(status: int, error: BaseException, target: str, doing: str) -> Exception:
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    message = _message(error)
    if status == 412:
        return Conflict(message)
    if _is_retried(status):
        headers = getattr(getattr(error, "response", None), "headers", {})
        return Unavailable(f"the Hub answered {status} ({message})", _requested_wait(headers))
    if status == 404 or isinstance(error, (EntryNotFoundError, RepositoryNotFoundError)):
        hint = "check the name; a private repository needs a token of an account that may see it"
        return NotThere(f"{target} is not on the Hub, or the token may not see it ({message})", hint=hint)
    if status == 401:
        return Refused(f"the Hub does not accept the token ({message})", hint=_TOKEN_ADVICE)
    if status == 402:
        return Refused(f"the account's storage or plan does not allow it ({message})", hint="see the billing page of the account")
    if status == 403:
        hint = "use a token of an account that may, or ask the owner for access" if doing == "read" else _OWNER_ADVICE
        return Refused(f"the token may not {doing} {target} ({message})", hint=hint)
    return Refused(f"the Hub refused to {doing} {target}: {message}")


def _message(error: BaseException) -> str:
    """The server's or the library's own words, without the addresses and request ids around them."""
    message = getattr(error, "server_message", None)
    if message is None and type(error) is ValueError:
        message = " ".join(str(error).split())  # what the storage says stands in later lines
    return mask(str(message or first_line(error)))[:_LONGEST]
