"""What ``make test`` leaves to ``make test-slow``, and the order in which files are run. A plugin.

A test that is marked ``slow`` is left out, unless ``-m`` speaks of ``slow`` or the fault matrix is run with its full counts.
``by_turns("mode", …)`` keeps of a parametrised test one cell for each combination of the other parameters: the values of those
that are named are taken in turns through the module, so that each kind is tried; the other cells are marked ``slow``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support import forked

SECONDS: dict[str, int] = {
    "hub/test_training_pushes.py": 35,
    "e2e/test_processes.py": 19,
    "e2e/test_exact_resume.py": 17,
    "e2e/test_other_machine.py": 15,
    "cli/test_workflow_guide.py": 14,
    "e2e/test_callbacks.py": 14,
    "e2e/test_real_model.py": 13,
    "e2e/test_tracking.py": 13,
    "hub/test_hub_faults.py": 13,
    "e2e/test_using.py": 12,
    "faults/test_power_loss.py": 12,
    "hub/test_accounts.py": 12,
    "hub/test_end_to_end.py": 11,
    "e2e/test_wrong_models.py": 12,
    "e2e/test_resume_everywhere.py": 11,
    "hub/test_diffusion_and_the_hub.py": 10,
    "e2e/test_memory.py": 10,
    "e2e/test_resume.py": 10,
    "e2e/test_train.py": 9,
    "faults/test_housekeeping_crashes.py": 9,
    "e2e/test_diffusion_resume.py": 8,
    "e2e/test_mixing.py": 8,
    "e2e/test_ner.py": 8,
    "e2e/test_saving.py": 8,
    "e2e/test_signals_anywhere.py": 8,
    "faults/test_crashes.py": 8,
    "hub/test_processes_and_the_hub.py": 7,
    "hub/test_pushing_all.py": 7,
    "e2e/test_diffusion_using.py": 7,
    "cli/test_streams.py": 7,
    "e2e/test_hostile_resume.py": 7,
    "e2e/test_killed_rank.py": 6,
    "e2e/test_rank.py": 6,
    "unit/trainers/tracking/test_tracking.py": 6,
    "e2e/test_samples.py": 6,
    "hub/test_lookalike.py": 6,
    "hub/test_pull_crashes.py": 6,
    "e2e/test_pull_and_resume.py": 6,
    "hub/test_signals_and_the_hub.py": 6,
    "packaging/test_wheel.py": 5,
    "e2e/test_base_training.py": 5,
    "hub/test_client.py": 5,
    "unit/trainers/models/test_demo_model.py": 5,
    "e2e/test_diffusion_mistakes.py": 5,
}
"""How long the longest files take on one core, in seconds. The rest take less than any of them."""


def pytest_configure(config: pytest.Config) -> None:
    """Full counts and slow tests compute with the kernels that users have; the others save the time that compiling those takes."""
    if _in_full(config):
        forked.use_onednn()


def _in_full(config: pytest.Config) -> bool:
    return "slow" in config.option.markexpr or bool(config.getoption("--full-faults"))


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Leave out what is slow, and let the longest files come first: where they came last, a process would wait for them alone."""
    _take_turns(items)
    yield  # ``-m`` is looked at here
    if not _in_full(config):
        slow = [item for item in items if item.get_closest_marker("slow") is not None]
        if slow:
            config.hook.pytest_deselected(items=slow)
            items[:] = [item for item in items if item.get_closest_marker("slow") is None]
    items.sort(key=lambda item: -SECONDS.get(_file(item), 0))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0].removeprefix("tests/")


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
