"""Fetches one published archive into the cache."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pitstop.checkpointing.disk.storage import LocalStorage, make_directories, put_in_place
from pitstop.configs.errors import DataError, ResourceError, first_line, is_disk_full

_CHUNK = 1 << 20
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Published:
    """A file on the web: its address, size in bytes and lower-case hexadecimal SHA-256."""

    url: str
    size: int
    sha256: str


class _Failed(Exception):
    """The other side or the line, not this machine's disk."""


def download(published: Published, target: Path, *, title: str, tell: Callable[[str], None]) -> None:
    """Fetch a file to ``target``, whose directory is made where it is missing; nothing is left of an attempt that fails.

    Raises:
        DataError: the network is forbidden (``HF_HUB_OFFLINE``) or fails, or what comes is not the file that was published.
        ResourceError: the disk does not take it.
    """
    from huggingface_hub import is_offline_mode

    by_hand = f"Fetch {published.url} elsewhere and put it at {target}, or into the directory of data.root."
    if is_offline_mode():
        raise DataError(f"{title} is not on this machine, and HF_HUB_OFFLINE forbids to download it.", hint=by_hand)
    tell(f"downloading {title} ({published.size / 1e6:.0f} MB) from {published.url}")
    storage = LocalStorage()

    def fetch(temporary: Path) -> None:
        record = storage.write_file(temporary, _pieces(published))
        if (record.size, record.sha256) != (published.size, published.sha256):
            raise _Failed(
                f"{record.size:,} bytes with the SHA-256 {record.sha256} came, not {published.size:,} with {published.sha256}"
            )

    try:
        make_directories(storage, target.parent)
        put_in_place(storage, target, fetch)
    except _Failed as error:
        raise DataError(f"{title} could not be downloaded from {published.url}: {error}.", hint=by_hand) from error
    except OSError as error:
        full = "the disk is full" if is_disk_full(error) else error.strerror or error
        raise ResourceError(
            f"{title} could not be saved to {target}: {full}.", hint="Free some space, or set XDG_CACHE_HOME to another place."
        ) from error


def _pieces(published: Published) -> Iterator[bytes]:
    """The body of the answer, and at most one piece more than is wanted of it."""
    remaining = published.size
    try:
        with urllib.request.urlopen(published.url, timeout=_TIMEOUT_S) as answer:
            while remaining >= 0 and (piece := answer.read(_CHUNK)):
                remaining -= len(piece)
                yield piece
    except (OSError, http.client.HTTPException, ValueError) as error:  # a URLError is an OSError; ValueError: a forged redirect
        raise _Failed(first_line(error)) from error
