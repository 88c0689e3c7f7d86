"""Hashes of examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pitstop.trainers.data.duplicates import example_hash, repeated
from pitstop.trainers.data.example import Example


def test_tokens_and_what_is_learnt_make_the_hash_and_nothing_else() -> None:
    example = Example(np.array([1, 2, 3], dtype=np.int32), np.array([False, True, True]))
    assert example_hash(replace(example, group="x", reference="y", cut=True, opens=False)) == example_hash(example) < 2**64
    assert example_hash(replace(example, supervised=np.array([False, False, True]))) != example_hash(example)
    assert example_hash(replace(example, input_ids=np.array([1, 2, 4], dtype=np.int32))) != example_hash(example)


def test_those_that_occur_before() -> None:
    assert repeated(np.array([5, 7, 5, 5], dtype=np.uint64)) == 2 and repeated(np.array([], dtype=np.uint64)) == 0
