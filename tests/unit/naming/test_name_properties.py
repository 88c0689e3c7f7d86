"""Whatever the settings: a name is valid on the Hub and as a directory on every system, and always the same."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime, timedelta

from huggingface_hub.utils import validate_repo_id
from hypothesis import assume, given
from hypothesis import strategies as st

from pitstop.checkpointing.disk.layout import parse_run_ref
from pitstop.naming.names import MAX_LENGTH, NameInputs, clean, hub_id, model_part, name_from, task_part, unique

# What Windows refuses, or changes behind one's back.
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
NASTY = st.sampled_from(
    ["CON", "nul.txt", "..", "a.git", "-", "_", "run_003", "7", "com1.x", "a" * 200, "é", "/", "a:b", " ", "a."]
)

words = st.text(max_size=120) | NASTY
fields = st.sampled_from(
    ["model", "task", "rank", "alpha", "epochs", "lr", "method", "experiment", "prefix", "timestamp", "hash"]
)
plain = words.map(lambda text: text.replace("{", "").replace("}", ""))
templates = st.lists(fields.map(lambda name: f"{{{name}}}") | plain, max_size=6).map("".join)
inputs = st.builds(
    NameInputs,
    model=words.map(model_part),
    task=words.map(task_part),
    rank=st.integers(1, 4096),
    alpha=st.integers(1, 65536),
    epochs=st.integers(1, 100_000),
    learning_rate=st.floats(1e-12, 10.0),
    method=st.sampled_from(["qlora", "lora"]),
    scheme=st.sampled_from(["derived", "timestamped"]),
    prefix=plain,
    template=st.none() | templates,
    experiment=st.none() | words,
    custom_id=st.none() | words,
    timestamp=st.booleans(),
    short=st.booleans(),
    with_hash=st.booleans(),
    digest=st.just("0123abcd"),
)
moments = st.datetimes()


def assert_is_a_good_name(name: str) -> None:
    validate_repo_id(name)
    validate_repo_id(hub_id("user", name))
    assert 1 <= len(name) <= MAX_LENGTH
    assert re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?", name), name
    assert name.split(".")[0].lower() not in RESERVED
    assert parse_run_ref(name).name == name, "it must not read as the number of a run"


@given(inputs, moments)
def test_a_name_is_valid_everywhere_and_always_the_same(made: NameInputs, now: datetime) -> None:
    name = name_from(made, now)
    assert_is_a_good_name(name.text)
    assert name == name_from(made, now)


@given(inputs, moments, st.sets(st.integers(0, 12)))
def test_a_name_that_counts_up_is_valid_and_free(made: NameInputs, now: datetime, counted: set[int]) -> None:
    name = name_from(made, now).text
    taken = {name} | {unique(name, lambda text, n=n: text == name or not text.endswith(f"-{n}")) for n in counted if n >= 2}
    free = unique(name, taken.__contains__)
    assert free not in taken
    assert_is_a_good_name(free)


@given(inputs, st.datetimes(max_value=datetime(9998, 1, 1)), st.integers(1, 10_000))
def test_full_timestamps_of_different_seconds_give_different_names(made: NameInputs, now: datetime, seconds: int) -> None:
    made = dataclasses.replace(made, timestamp=True, short=False, custom_id=None, template=None)
    earlier, later = name_from(made, now), name_from(made, now + timedelta(seconds=seconds))
    assume(not any("short timestamp" in note for note in (*earlier.notes, *later.notes)))
    assert earlier.text != later.text


@given(words)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)
