"""When freed memory is given back."""

from __future__ import annotations

import sys

import pytest

from pitstop.trainers.machine.heap import TrimHeap


def test_trims_only_where_memory_has_grown_by_a_fifth_since_its_least() -> None:
    sizes = iter([100, 119, 121, 90, 107, 109])
    trims: list[int] = []
    step = 0
    hook = TrimHeap(lambda: trims.append(step), lambda: next(sizes))
    for step in range(1, 7):
        hook.at_boundary(step)
    assert trims == [3, 6]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_finds_the_allocator_of_this_system() -> None:
    hook = TrimHeap.for_this_system()
    if hook is None:
        pytest.skip("the C library is not glibc")
    hook.at_boundary(1)
