"""stdout and stderr as a command finds them: of any encoding, closed, or with a reader that goes away.

What a command does must not depend on whether a character can be printed or somebody reads it. Each process of ours makes
its streams ready once, at its start; everything that prints after that, a library included, is covered.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import IO, TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_ERRORS = "pitstop.plain"
_SIGNS = {
    "…": "...", "←": "<-", "→": "->", "↑": "^", "↓": "v", "−": "-", "–": "-", "—": "-", "×": "x", "·": "-", "•": "-", "★": "*",
    "≤": "<=", "≥": ">=", "≈": "~", "±": "+-", "√": "sqrt", "²": "^2", "³": "^3", "σ": "sigma", "“": '"', "”": '"', "‘": "'",
    "’": "'", "«": "<<", "»": ">>", "\u00a0": " ", "\u2800": " ",
}  # fmt: skip
_HORIZONTAL, _VERTICAL = "─━┄┅┈┉╌╍═╴╶╸╺╼╾", "│┃┆┇┊┋╎╏║╵╷╹╻╽╿"
_BOX, _BLOCKS, _BRAILLE = range(0x2500, 0x2580), range(0x2580, 0x25A0), range(0x2800, 0x2900)
_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ESHUTDOWN, errno.ECONNRESET)
_WIDTHS = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
_WIDEST = 10_000


def restart_in_utf_8() -> None:
    """Start this process anew with paths and arguments as UTF-8, where a C locale makes ASCII of them: no record could hold the rest.

    What is printed keeps the encoding of the locale.
    """
    if os.name != "posix" or sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8":
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    environment = {"PYTHONIOENCODING": encoding, **os.environ, "PYTHONUTF8": "1"}
    with contextlib.suppress(OSError):  # without it, ASCII names do
        os.execve(sys.executable, sys.orig_argv, environment)


def prepare() -> None:
    """Make stdout and stderr of this process such that printing never raises, and pass over sizes of a terminal that are none.

    A character that the encoding lacks becomes a plain sign or ``?``. Where the reader has gone, or a stream was closed from
    the beginning, what is printed is dropped; while a disk is full, so is what is printed then, and ``lost`` says so.
    """
    codecs.register_error(_ERRORS, _plain)
    for descriptor in (0, 1, 2):
        _hold_open(descriptor)
    sys.stdout, sys.stderr = _sturdy(sys.stdout, 1), _sturdy(sys.stderr, 2)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for name in _WIDTHS:
        size = os.environ.get(name, "1")
        if not (size.isascii() and size.isdecimal() and 0 < int(size[:10]) <= _WIDEST):
            del os.environ[name]


def let_display_go() -> None:
    """What stdout gets from here on is no result, but shows how work is going: nothing is amiss where it cannot be written."""
    if (raw := _raw_stdout()) is not None:
        raw.holds_result = False


def lost() -> OSError | None:
    """Why some of the result was not written to stdout, where a reader still waits for it: a full disk, say."""
    with contextlib.suppress(ValueError):  # closed
        sys.stdout.flush()
    raw = _raw_stdout()
    return raw.problem if raw is not None and raw.holds_result else None


def _raw_stdout() -> _Descriptor | None:
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, _Descriptor) else None


def text_of(read: str) -> str:
    """What was ``read`` from stdin; bytes that its encoding does not know are taken for UTF-8. Raises ``UnicodeDecodeError``."""
    if not any("\udc80" <= character <= "\udcff" for character in read):
        return read
    return read.encode(sys.stdin.encoding, "surrogateescape").decode("utf-8")


def can_show(text: str, stream: IO[str] | None = None) -> bool:
    """Whether the encoding of ``stream`` (stdout unless given) has every character of ``text``."""
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


class _Descriptor(io.FileIO):
    """A file descriptor to which a write never fails; ``problem`` is what kept output from a reader who is there."""

    problem: OSError | None = None
    holds_result = True

    def write(self, data: Buffer) -> int:
        """Write all of it, since without a buffer nobody else would, and drop what cannot be written."""
        content = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(content):
                count = super().write(content[written:])
                if count is None:  # another program made it non-blocking, and the reader is slow
                    select.select([], [self], [])
                written += count or 0
        except OSError as error:
            if error.errno in _GONE:
                with open(os.devnull, "wb") as nothing:
                    os.dup2(nothing.fileno(), self.fileno())
            else:
                self.problem = error
        return len(content)


def _sturdy(stream: TextIO | None, descriptor: int) -> TextIO:
    """``stream`` as one whose writes never fail; where it is no plain file, only characters are seen to."""
    if stream is None:  # the descriptor was closed when Python started
        return io.TextIOWrapper(io.BufferedWriter(_Descriptor(descriptor, "wb", closefd=False)), "utf-8", _ERRORS)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    buffer = stream.buffer
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED there is no buffer
    if type(raw) is not io.FileIO:
        stream.reconfigure(errors=_ERRORS)
        return stream
    stream.flush()
    sturdy = _Descriptor(raw.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        sturdy if raw is buffer else io.BufferedWriter(sturdy),
        stream.encoding,
        _ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _hold_open(descriptor: int) -> None:
    """Put nothing in the place of a standard stream that was closed: the next file that is opened would take it, and be printed into."""
    try:
        os.fstat(descriptor)
    except OSError:
        nothing = os.open(os.devnull, os.O_RDWR)
        if nothing != descriptor:
            os.dup2(nothing, descriptor)
            os.close(nothing)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_sign, error.object[error.start : error.end])), error.end


def _sign(character: str) -> str:
    code = ord(character)
    if code in _BOX:
        return "-" if character in _HORIZONTAL else "|" if character in _VERTICAL else "+"
    return _SIGNS.get(character) or ("#" if code in _BLOCKS else "*" if code in _BRAILLE else "?")
