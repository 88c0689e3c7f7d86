"""What a checkpoint holds of a path, and how a run finds the whole path again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.checkpointing.store.portable_paths import full_settings, portable, portable_settings, portable_value
from pitstop.configs.leaves import by_path
from pitstop.configs.paths import PATHS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/alice/models/tiny", "tiny"),
        ("/home/alice/models/tiny/", "tiny"),
        ("/home/alice/models/tiny/.", "tiny"),
        ("/home/alice/models//tiny", "tiny"),
        ("/home/alice/tiny/x/..", "tiny"),
        ("/tiny", "tiny"),
        ("~/models/tiny", "tiny"),
        ("~alice/models/tiny", "tiny"),
        (r"~\models\tiny", "tiny"),
        (r"C:\Users\alice\tiny", "tiny"),
        ("c:/Users/alice/tiny", "tiny"),
        ("C:\\Users/alice\\tiny\\", "tiny"),
        (r"\\server\share\alice\tiny", "tiny"),
        ("//server/share/alice/tiny", "tiny"),
        (r"\Users\alice\tiny", "tiny"),
        (r"\\?\C:\Users\alice\tiny", "tiny"),
        ("/data/with space/tráin.jsonl", "tráin.jsonl"),
        ("/", "/"),
        ("C:\\", "C:"),
        ("/home/alice/data/a.jsonl:0.7", "a.jsonl:0.7"),
        ("/home/alice/data/:0.7", "data:0.7"),
        (r"C:\Users\alice\a.jsonl:2", "a.jsonl:2"),
    ],
)
def test_of_an_absolute_path_the_last_component_is_left(text: str, expected: str) -> None:
    assert portable(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "gpt2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "example:medical_ner/train.jsonl",
        "data/train.jsonl",
        "./model",
        "../model",
        "models\\tiny",
        "checkpoints",
        "~",
        "~x",
        "",
    ],
)
def test_anything_else_stays_as_it_is(text: str) -> None:
    assert portable(text) == text


_NAMES = st.text(st.characters(blacklist_characters="/\\", blacklist_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..")
)
_ROOTS = st.sampled_from(["/", "~/", "~\\", "C:\\", "z:/", "\\\\server\\share\\", "//server/share/", "\\"])


@given(_ROOTS, st.lists(_NAMES, min_size=1), _NAMES, st.sampled_from(["/", "\\"]))
def test_no_directory_is_left_whatever_the_path(root: str, directories: list[str], name: str, separator: str) -> None:
    directory = root + separator.join(directories)
    for text in (directory + separator + name, directory + separator + name + separator):
        assert portable(text) == name
        assert directory not in portable(text)


@given(st.one_of(st.text(), st.text("/\\~.:Ca \0")))
def test_what_is_portable_stays_and_is_no_absolute_path(text: str) -> None:
    once = portable(text)
    assert portable(once) == once
    assert once == text or once == "/" or not set(once) & {"/", "\\"}


def test_of_settings_those_that_may_be_paths_change_and_no_other() -> None:
    settings: dict[str, Any] = {
        "model": {"id": "/m/tiny", "revision": "/v1"},
        "data": {"train": ["/d/a.jsonl", "owner/set"], "eval": [], "max_length": 8},
        "training": {"checkpoint": {"base_dir": "~/runs", "monitor": "/x"}, "epochs": 2},
    }
    before = repr(settings)
    assert portable_settings(settings) == {
        "model": {"id": "tiny", "revision": "/v1"},
        "data": {"train": ["a.jsonl", "owner/set"], "eval": [], "max_length": 8},
        "training": {"checkpoint": {"base_dir": "runs", "monitor": "/x"}, "epochs": 2},
    }
    assert repr(settings) == before
    assert portable_settings({"data": 3, "lora": {"rank": 4}}) == {"data": 3, "lora": {"rank": 4}}
    assert set(PATHS) <= by_path().keys()


def test_values_that_are_no_text_stay() -> None:
    assert [portable_value(value) for value in (None, 3, ["/a/b", None])] == [None, 3, ["b", None]]


def test_full_values_come_from_the_first_place_that_fits() -> None:
    held = {"model": {"id": "tiny"}, "data": {"train": ["a.jsonl", "b.jsonl"], "eval": ["e.jsonl"]}}
    places = [
        {"model.id": "/other/llama", "data.train": ["/1/a.jsonl"]},
        {"model.id": "/2/tiny", "data.train": ["/2/a.jsonl", "b.jsonl"], "lora.rank": 9},
        {"model.id": "/3/tiny", "data.eval": None},
    ]
    assert full_settings(held, places) == {
        "model": {"id": "/2/tiny"},
        "data": {"train": ["/2/a.jsonl", "b.jsonl"], "eval": ["e.jsonl"]},
    }
    assert full_settings({"model": {"id": "/old/tiny"}}, places) == {"model": {"id": "/old/tiny"}}
