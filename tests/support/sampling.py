"""What ``make test`` leaves to ``make test-slow``, and the order in which files are run. A plugin.

A test that is marked ``slow`` is left out, unless ``-m`` speaks of ``slow`` or the fault matrix is run with its full counts.
``by_turns("mode", …)`` keeps of a parametrised test one cell for each combination of the other parameters: the values of those
that are named are taken in turns through the module, so that each kind is tried; the other cells are marked ``slow``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SECONDS: dict[str, int] = {}
"""How long the longest files take on one core, in seconds. The rest take less than any of them."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, and let the longest files come first: where they came last, a process would wait for them alone."""
    _take_turns(items)
    if "slow" not in config.option.markexpr and not config.getoption("--full-faults"):
        slow = [item for item in items if item.get_closest_marker("slow") is not None]
        if slow:
            config.hook.pytest_deselected(items=slow)
            items[:] = [item for item in items if item.get_closest_marker("slow") is None]
    items.sort(key=lambda item: -SECONDS.get(_file(item), 0))


def _file(item: pytest.Item) -> str:
    return (
        item.path.relative_to(Path(__file__).parents[1]).as_posix() if item.path.is_relative_to(Path(__file__).parents[1]) else ""
    )


def _take_turns(items: Sequence[pytest.Item]) -> None:
    for cells in _modules(items):
        for turn, same in enumerate(cells.values()):
            for number, item in enumerate(same):
                if number != turn % len(same):
                    item.add_marker(pytest.mark.slow)


def _modules(items: Sequence[pytest.Item]) -> Iterator[dict[tuple[object, ...], list[pytest.Item]]]:
    """For each file, the items that differ only in parameters that take turns."""
    files: dict[Path, dict[tuple[object, ...], list[pytest.Item]]] = {}
    for item in items:
        marker = item.get_closest_marker("by_turns")
        if marker is not None and isinstance(item, pytest.Function):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            rest = [(name, repr(value)) for name, value in sorted(parameters.items()) if name not in marker.args]
            files.setdefault(item.path, {}).setdefault((item.originalname, *rest), []).append(item)
    yield from files.values()
