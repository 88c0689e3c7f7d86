"""A Hub on loopback, and processes that take it for the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub import Hub
from support.hub.distant import Distant
from support.hub.environment import environment


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub for this test. The test fails when the look-alike itself broke."""
    with Hub(tmp_path / "hub-server") as running:
        yield running
    assert not running.errors, "\n".join(running.errors)


@pytest.fixture(scope="session", params=["lfs", "xet"])
def mode(request: pytest.FixtureRequest) -> str:
    """How large files travel: by LFS or by Xet. A test that asks for it, or for what needs it, runs in both."""
    return str(request.param)


@pytest.fixture
def hub_environment(hub: Hub, mode: str, tmp_path: Path) -> dict[str, str]:
    """The environment for a process that talks to ``hub``, with a token that may write and an HF_HOME of its own."""
    return environment(hub, mode, tmp_path / "hf-home")


@pytest.fixture
def distant(hub_environment: dict[str, str]) -> Iterator[Distant]:
    """A process with ``hub_environment``, in which functions are called: see ``Distant``."""
    with Distant(hub_environment) as process:
        yield process


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub for all tests of a module: each uses repositories of its own and begins with ``reset()``."""
    with Hub(tmp_path_factory.mktemp("hub") / "server") as running:
        yield running


@pytest.fixture
def emptied_hub(module_hub: Hub) -> Iterator[Hub]:
    """The Hub of the module, as if it were new. The test fails when the look-alike itself broke."""
    module_hub.reset()
    for repository in list(module_hub.store.repositories.values()):
        module_hub.store.remove(repository)
    yield module_hub
    assert not module_hub.errors, "\n".join(module_hub.errors)


@pytest.fixture(scope="module")
def module_distant(module_hub: Hub, mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distant]:
    """A process for all tests of a module, since starting one takes a second."""
    with Distant(environment(module_hub, mode, tmp_path_factory.mktemp("hf-home"))) as process:
        yield process


@pytest.fixture(scope="module")
def module_lfs(module_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distant]:
    """The same by LFS only, for what has nothing to do with how large files travel."""
    with Distant(environment(module_hub, "lfs", tmp_path_factory.mktemp("hf-home"))) as process:
        yield process
