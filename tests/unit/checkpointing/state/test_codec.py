"""Python objects with tensors to JSON and back."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pitstop.checkpointing.state import codec
from pitstop.configs.errors import CheckpointError


def there_and_back(value: Any) -> Any:
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(codec.encode(value, tensors, "root"), allow_nan=False)
    assert codec.tensors_in(json.loads(text)) == sorted(tensors)
    return codec.decode(json.loads(text), tensors, "file")


KEYS = st.one_of(st.text(max_size=4), st.integers(), st.booleans(), st.none())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
@settings(max_examples=40, deadline=None)
def test_every_plain_value_comes_back_as_it_was(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert repr(back) == repr(value)  # 1 is not True, and a tuple is no list


def test_numbers_that_are_not_finite_counters_sets_and_types_come_back() -> None:
    value = {"a": math.inf, "b": (-math.inf, {3, 1}), 5: Counter({2: 1}), "$d": torch.float16, "device": torch.device("cpu")}
    back = there_and_back(value)
    assert back == value
    assert type(back[5]) is Counter
    assert math.isnan(there_and_back([math.nan])[0])
    assert there_and_back({"n": np.float64(0.1), "i": np.int64(3)}) == {"n": 0.1, "i": 3}


def test_tensors_keep_their_names_and_are_not_copied() -> None:
    tensor = torch.tensor([1.0, math.nan])
    tensors: dict[str, torch.Tensor] = {}
    encoded = codec.encode({"state": [{"exp": tensor}]}, tensors, "0")
    assert tensors == {"0/state/0/exp": tensor}
    assert codec.decode(encoded, tensors, "file")["state"][0]["exp"] is tensor


@pytest.mark.parametrize(
    "value", [object(), lambda: 0, b"bytes", 1j, Exception("no")], ids=["object", "function", "bytes", "complex", "error"]
)
def test_what_only_pickle_could_hold_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"extra/a/1: an? \w+ cannot be saved") as error:
        codec.encode({"a": [1, value]}, {}, "extra")
    assert error.value.hint is not None and "ever pickled" in error.value.hint


def test_an_endless_value_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CheckpointError, match="nested more than"):
        codec.encode(endless, {}, "extra")


@pytest.mark.parametrize(
    "content",
    [{"$call": ["os.system", "id"]}, {"$tensor": "none"}, {"$float": "1"}, {"$tuple": 5}, {"$tuple": [], "x": 1}, {"$dtype": "nn"}, {"$items": [1]}, {"$set": [[]]}],
    ids=str,
)  # fmt: skip
def test_anything_that_was_not_written_so_is_refused(content: Any) -> None:
    with pytest.raises(CheckpointError, match=r"state\.json: holds something"):
        codec.decode([content], {}, "state.json")
