"""The look-alike itself: two ports, the switches that tests turn, and a look behind the scenes."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from support.hub import api, pushing, trees  # noqa: F401 - they register their routes, as lfs and xet do
from support.hub.access import TOKENS, User
from support.hub.faults import CommitLimit, Fault, Faults
from support.hub.store import MAIN, Commit, Entry, Repository, Store
from support.hub.wire import Exchange, Request
from support.hub.xet import XetStore

_BASE64 = re.compile(rb'"(?:content|sample)": ?"([A-Za-z0-9+/=]+)"')  # as files travel in preupload and commit


class Listener(ThreadingHTTPServer):
    """One port, which can be closed for a while and stays ours meanwhile."""

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub = hub
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Exchange)

    @property
    def origin(self) -> str:
        """The address up to the path."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that it can be cut."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""

    def serve(self) -> None:
        """Answer, in a thread of its own."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Refuse new connections and cut those that are open."""
        self.shutdown()
        self.socket.close()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def hold(self) -> None:
        """Close, and keep the port without listening, so that nobody else gets it."""
        self.close()
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)

    def reopen(self) -> None:
        """Listen again on the port that was held."""
        self.socket.listen(self.request_queue_size)
        self.serve()


class Hub:
    """A Hub on loopback for as long as the ``with`` block lasts. ``endpoint`` is what HF_ENDPOINT has to be.

    It has two origins, since the client follows redirects within one and then misses headers: ``endpoint`` is the Hub,
    ``cdn`` keeps large files. ``tokens`` maps tokens to users. Files from ``lfs_threshold`` bytes on are large, as are
    those named like weights; above ``part_size`` bytes they are sent in parts. ``page`` is how many entries a page of a
    listing has. With ``keep_bodies`` all that clients sent is kept in memory: see ``everything``. ``errors`` holds the
    tracebacks of the look-alike's own mistakes.
    """

    def __init__(
        self,
        root: Path | str,
        port: int = 0,
        *,
        tokens: Mapping[str, User] | None = None,
        lfs_threshold: int = 10 << 20,
        part_size: int | None = None,
        xet: bool = True,
        page: int = 1000,
        keep_bodies: bool = False,
    ) -> None:
        self.store = Store(Path(root), lfs_threshold)
        self.xet = XetStore(self.store, on=xet)
        self.tokens = dict(TOKENS if tokens is None else tokens)
        self.part_size = part_size
        self.page = page
        self.keep_bodies = keep_bodies
        self.faults = Faults()
        self.commit_limit: CommitLimit | None = None
        self.retry_after: int | None = None
        self.refused_objects: set[str] = set()
        self.log: list[Request] = []
        self.errors: list[str] = []
        self._listeners = (Listener(self, port), Listener(self, 0))
        self.endpoint, self.cdn = (listener.origin for listener in self._listeners)
        self._is_up = False

    def __enter__(self) -> Hub:
        for listener in self._listeners:
            listener.serve()
        self._is_up = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for listener in self._listeners:
            if self._is_up:
                listener.close()
            else:
                listener.socket.close()

    # -- switches

    def down(self) -> None:
        """Refuse every connection from now on, and cut those that are open."""
        if self._is_up:
            for listener in self._listeners:
                listener.hold()
        self._is_up = False

    def up(self) -> None:
        """Answer again, on the same ports."""
        if not self._is_up:
            for listener in self._listeners:
                listener.reopen()
        self._is_up = True

    def forget(self) -> None:
        """In a forked child: let go of the ports, which else stay open as long as the child lives."""
        for listener in self._listeners:
            listener.socket.close()

    def fault(self, **rule: Any) -> Fault:
        """Spoil requests to come: see ``Fault``."""
        return self.faults.add(**rule)

    def limit_commits(self, count: int, window_s: float, retry_after: int | None = None) -> None:
        """Answer 429 once there were ``count`` commits within ``window_s`` seconds.

        Retry-After is the seconds until there is room again, or ``retry_after``.
        """
        self.commit_limit, self.retry_after = CommitLimit(count, window_s), retry_after

    def reset(self) -> None:
        """Forget faults, limits and the log, and answer again; repositories stay."""
        self.up()
        self.faults.clear()
        self.commit_limit = self.retry_after = None
        self.refused_objects.clear()
        self.log.clear()

    # -- behind the scenes; a repository is one of models

    def requests(self, method: str = ".*", path: str = "") -> list[Request]:
        """The requests so far whose method and path match these regular expressions."""
        wanted = Fault(method=method, path=path)
        return [entry for entry in self.log if wanted.matches(entry.method, entry.path)]

    def repository(self, name: str, kind: str = "models") -> Repository:
        """A repository as it is stored. ``KeyError`` when there is none."""
        return self.store.repositories[kind, name]

    def create(self, name: str, *, private: bool = True) -> Repository:
        """Make a repository without a client."""
        return self.store.create("models", name, private=private)

    def commits(self, name: str) -> list[Commit]:
        """The history of main, newest first."""
        repository = self.repository(name)
        return list(repository.history(repository.commits[repository.refs[MAIN]]))

    def raw_tree(self, name: str) -> dict[str, Entry]:
        """The newest tree itself: what is changed in it is changed in that commit, without a new one and without a check."""
        return self.commits(name)[0].tree

    def tree(self, name: str, commit: str = "main") -> dict[str, Entry]:
        """Every file at a commit, by its path."""
        found = self.repository(name).find(commit)
        if found is None:
            raise KeyError(commit)
        return dict(found.tree)

    def content(self, name: str, path: str, commit: str = "main") -> bytes:
        """A file at a commit. ``KeyError`` when there is none."""
        return self.store.file(self.tree(name, commit)[path]).read_bytes()

    def put(
        self, name: str, files: Mapping[str, bytes], delete: Sequence[str] = (), title: str = "changed behind the scenes"
    ) -> Commit:
        """Change files in one commit that no client made; ``delete`` takes files, and directories with what they hold."""
        with self.store.lock:
            repository, tree = self.repository(name), self.tree(name)
            for gone in delete:
                tree = {path: entry for path, entry in tree.items() if path != gone and not path.startswith(f"{gone}/")}
            tree |= {path: self.store.add(path, content) for path, content in files.items()}
            return self.store.commit(repository, MAIN, tree, title, author="somebody")

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """All that clients pushed, each with where it was: bodies (``keep_bodies``), what Xet packed, and stored commits."""
        for entry in self.log:
            place = f"{entry.method} {entry.path}"
            yield place, entry.path.encode() + b"\n" + entry.body
            for coded in _BASE64.findall(entry.body) if entry.path.startswith("/api/") else ():
                yield place, base64.b64decode(coded)
        yield from self.xet.xorbs()
        for repository in self.store.repositories.values():
            for commit in repository.commits.values():
                yield from self._committed(repository, commit)

    def _committed(self, repository: Repository, commit: Commit) -> Iterator[tuple[str, bytes]]:
        place = f"{repository.id}@{commit.oid}"
        yield place, f"{commit.title}\n{commit.message}".encode()
        for path, entry in commit.tree.items():
            yield f"{place}:{path}", path.encode() + b"\n" + self.store.file(entry).read_bytes()

    def where(self, needle: str | bytes) -> list[str]:
        """Where in ``everything`` the needle is, as it is or as JSON writes it."""
        raw = needle.encode() if isinstance(needle, str) else needle
        forms = (raw, json.dumps(raw.decode(errors="replace"))[1:-1].encode())
        return [place for place, content in self.everything() if any(form in content for form in forms)]
