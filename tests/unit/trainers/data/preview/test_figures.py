"""Figures of examples."""

from __future__ import annotations

import numpy as np
import pytest

from pitstop.trainers.data.example import Example
from pitstop.trainers.data.preview.figures import ExampleFigures, LengthBin


def _example(tokens: int, learnt: int = 1) -> Example:
    return Example(np.arange(tokens, dtype=np.int32), np.arange(tokens) >= tokens - learnt)


def test_lengths_in_powers_of_two_with_those_that_are_too_long() -> None:
    figures = ExampleFigures()
    for tokens in (3, 4, 5, 8, 17):
        figures.add([_example(tokens)], [])
    figures.add([], [_example(33)])
    assert figures.histogram() == [
        LengthBin(3, 4, 2),
        LengthBin(5, 8, 2),
        LengthBin(9, 16, 0),
        LengthBin(17, 32, 1),
        LengthBin(33, 64, 1),
    ]
    assert figures.longest == 33 and (figures.used, figures.tokens, figures.records) == (5, 37, 5)
    assert ExampleFigures().histogram() == [] and ExampleFigures().longest == 0


@pytest.mark.parametrize(("tokens", "low", "high"), [(1, 1, 1), (2, 2, 2), (3, 3, 4), (1024, 513, 1024), (1025, 1025, 2048)])
def test_the_bounds_of_a_bin(tokens: int, low: int, high: int) -> None:
    figures = ExampleFigures()
    figures.add([_example(tokens)], [])
    assert figures.histogram() == [LengthBin(low, high, 1)]


def test_examples_of_a_record_and_duplicates() -> None:
    figures = ExampleFigures()
    figures.add([_example(4), _example(5)], [])
    figures.add([_example(4, learnt=2)], [_example(99)])
    figures.add([_example(4)], [])
    assert figures.of_records == {1: 2, 2: 1} and figures.duplicates == 1 and figures.learnt == 5
