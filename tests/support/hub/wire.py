"""One connection to the look-alike: HTTP/1.1 in and out, disturbed by the faults in force."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl

from support.hub import routing
from support.hub.faults import Fault

if TYPE_CHECKING:
    from support.hub.server import Hub

_PIECE = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close without a farewell
_UNSPOILED = Fault()


@dataclass
class Request:
    """What the log keeps of a request. ``status`` is None while it runs and "cut" where the connection was cut."""

    method: str
    path: str
    authorised: bool
    port: int
    range: str | None
    at: float
    status: int | str | None = None
    received: int = 0
    sent: int = 0
    body: bytes = b""


class Refusal(Exception):
    """The answer is an error: ``code`` becomes X-Error-Code, ``extra`` goes beside the message into the body."""

    def __init__(
        self, status: int, message: str, code: str | None = None, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.extra = extra


class Cut(Exception):
    """Cut the connection now."""


class Exchange(BaseHTTPRequestHandler):
    """A connection, and the request that it is at. Handlers of routes read ``query``, ``body()`` or ``json()``, and reply."""

    protocol_version = "HTTP/1.1"
    server_version = "HubLookalike/1"
    disable_nagle_algorithm = True
    hub: Hub
    entry: Request
    fault: Fault
    query: dict[str, str]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the hub keeps its own log."""

    def setup(self) -> None:
        """Take the hub from the listener."""
        super().setup()
        self.hub = self.server.hub  # type: ignore[attr-defined]

    # -- a request from beginning to end

    def handle_request(self) -> None:
        """Carry out one request, whatever its method."""
        self._begin()
        try:
            self._answer()
        except Cut:
            self._cut()
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception:
            self.hub.errors.append(traceback.format_exc())
            self._cut()
        finally:
            if self._has_unread_body():
                self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = handle_request

    def _begin(self) -> None:
        path, _, query = self.path.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self._body_read = False
        authorised = bool(self.headers.get("Authorization"))
        port = self.server.server_address[1]
        self.entry = Request(self.command, self.path, authorised, int(port), self.headers.get("Range"), time.time())
        self.fault = _UNSPOILED
        if not path.startswith("/_test"):
            self.fault = self.hub.faults.take(self.command, self.path) or _UNSPOILED
            self.hub.log.append(self.entry)

    def _answer(self) -> None:
        try:
            if self.fault.drop == "before":
                raise Cut
            time.sleep(self.fault.delay)
            if self.fault.status:
                raise Refusal(self.fault.status, self.fault.body, self.fault.code, headers=self.fault.headers)
            handler, names = routing.find(self.command, self.path.partition("?")[0])
            if handler is None:
                raise Refusal(404, f"no route for {self.command} {self.path}")
            handler(self, **names)
        except Refusal as refusal:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        headers = {**refusal.headers, "X-Error-Message": refusal.message.replace("\n", " ")}
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        if not self._body_read:  # read what is being sent, so that the client sees the answer and not a reset
            for _ in self.pieces():
                pass
        page = refusal.message.encode() if "Content-Type" in headers else None
        self.reply(page or {"error": refusal.message, **refusal.extra}, refusal.status, headers)

    def _cut(self) -> None:
        self.close_connection, self.entry.status = True, "cut"
        try:
            if self.fault.fin:
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            for part in (self.rfile, self.wfile, self.connection):
                part.close()
        except OSError:
            pass
        self.rfile, self.wfile = io.BytesIO(), io.BytesIO()  # what http.server still flushes goes nowhere

    # -- the request's body

    def _has_unread_body(self) -> bool:
        has_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        return has_body and not self._body_read

    def pieces(self) -> Iterator[bytes]:
        """The request's body in pieces, as far as the fault lets it through."""
        self._body_read = True
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        for piece in self._body_as_sent():
            self.entry.received += len(piece)
            if self.hub.keep_bodies:
                self.entry.body += piece
            if self.fault.drop == "body" and self.entry.received > self.fault.after:
                raise Cut
            self.fault.slow_down(len(piece))
            yield piece

    def _body_as_sent(self) -> Iterator[bytes]:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield from self._exactly(size)
            self.rfile.readline()
        self.rfile.readline()

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, _PIECE))
            if not piece:  # the client went away
                raise Cut
            size -= len(piece)
            yield piece

    def body(self) -> bytes:
        """The request's whole body."""
        return b"".join(self.pieces())

    def json(self) -> Any:
        """The request's body as JSON; an empty one is an empty object."""
        return json.loads(self.body() or b"{}")

    # -- the answer

    def reply(
        self, content: Any = None, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> None:
        """Answer with bytes, or with anything else as JSON."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = content_type or ("application/octet-stream" if isinstance(content, bytes) else "application/json")
        self._send(status, {"Content-Type": kind, **(headers or {})}, io.BytesIO(raw), len(raw))

    def reply_file(self, file: Path, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a file, or with the range of it that was asked for."""
        size = file.stat().st_size
        heads = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **(headers or {})}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        status, first, last = 200, 0, size - 1
        if wanted and self.command != "HEAD":
            status, (first, last) = 206, _span(wanted[1], wanted[2], size)
            if first >= size:
                raise Refusal(416, "no such range", headers={"Content-Range": f"bytes */{size}"})
            heads["Content-Range"] = f"bytes {first}-{last}/{size}"
        with file.open("rb") as source:
            source.seek(first)
            self._send(status, heads, source, last - first + 1)

    def _send(self, status: int, headers: Mapping[str, str], source: BinaryIO, length: int) -> None:
        if self.fault.drop == "after":
            raise Cut
        self.entry.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length), "X-Request-Id": f"Root=look-{len(self.hub.log)}"}.items():
            self.send_header(name, value)
        if self._has_unread_body():
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self._pour(source, length)

    def _pour(self, source: BinaryIO, length: int) -> None:
        while self.entry.sent < length:
            piece = source.read(min(_PIECE, length - self.entry.sent))
            if self.fault.corrupt and self.entry.sent == 0:
                piece = bytes([piece[0] ^ 0xFF]) + piece[1:]
            if self.fault.drop == "download" and self.entry.sent + len(piece) > self.fault.after:
                self.wfile.write(piece[: max(0, self.fault.after - self.entry.sent)])
                time.sleep(0.05)  # let the client read it before the reset
                raise Cut
            self.wfile.write(piece)
            self.entry.sent += len(piece)
            self.fault.slow_down(len(piece))


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """The bytes that a Range header means: from, up to, or the last so many."""
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last) if last else size - 1, size - 1)
