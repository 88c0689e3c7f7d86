"""What every test stands on: no network but loopback, no settings from the developer's machine, an empty directory."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.leaves import leaves
from support.cli import Cli
from support.stores import fast_directory

pytest_plugins = ["support.fault_matrix", "support.forked", "support.image_training", "support.real_training", "support.sampling"]

REPOSITORY = Path(__file__).resolve().parent.parent
_COLOUR_SWITCHES = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "TERMINAL_WIDTH")


def pytest_configure() -> None:
    """Clean the environment once, before any test module is imported: subprocesses inherit it."""
    if (memory := fast_directory()) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))  # of all temporary directories: nothing waits for a disk
    settings = {leaf.env for leaf in leaves()}
    for name in list(os.environ):
        if name in settings or name.startswith("PITSTOP_") or name in _COLOUR_SWITCHES:
            del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # tests fork
    if "PYTEST_XDIST_WORKER" in os.environ:  # the other test processes have the other cores
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    _block_sockets()


class NetworkBlocked(OSError):
    """A test tried to leave this machine."""


def _block_sockets() -> None:
    real_connect, real_connect_ex, real_getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        _only_here(self.family, address)
        real_connect(self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:
        _only_here(self.family, address)
        return real_connect_ex(self, address)

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        if not _is_loopback(host):
            raise NetworkBlocked(f"tests may look up no host but loopback, not {host!r}")
        return real_getaddrinfo(host, *rest, **named)

    socket.socket.connect = connect  # type: ignore[method-assign]
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
    socket.getaddrinfo = getaddrinfo


def _only_here(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
        raise NetworkBlocked(f"tests may connect to no host but loopback, not {address!r}")


def _is_loopback(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a directory of its own: ``.env`` and ``checkpoints/`` are looked for in the current one."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def pitstop(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call ``pitstop`` in this process: ``pitstop("name", "--simple")`` gives code, stdout and stderr."""
    return Cli(capsys)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests belong to."""
    return REPOSITORY


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The directory of the demo model; ``make test`` fetches it, elsewhere the test is skipped where it is missing."""
    from pitstop.trainers.models.demo_model import demo_model_path

    path = demo_model_path()
    if path is None:
        pytest.skip("the demo model is not in the cache: run `pitstop fetch-demo`")
    return path
