"""What settings say of fields is checked before a record is read."""

from __future__ import annotations

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.record_fields import parse_columns, parse_options, parse_roles, split_template


def test_pairs_are_a_mapping() -> None:
    assert parse_columns(["prompt=question", " completion = answers.text[0] ", "system="]) == {
        "prompt": "question",
        "completion": "answers.text[0]",
        "system": "",
    }
    assert parse_roles(["Critic=assistant"]) == {"critic": "assistant"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["prompt"], "--column: 'prompt' is not NAME=FIELD."),
        (["=x"], "--column: '=x' is not NAME=FIELD."),
        (["prompt=a", "prompt=b"], "--column: prompt has two values, a and b."),
        (["prompt=a[x]"], r"--column: 'a\[x\]' names no field."),
        (["prompt=a..b"], "--column: 'a..b' names no field."),
    ],
)
def test_what_names_no_field_is_refused(entries: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_columns(entries)


def test_a_role_has_to_become_one() -> None:
    with pytest.raises(SettingsError, match="critic has no role to become"):
        parse_roles(["critic="])


def test_options_of_a_template_are_json_or_text() -> None:
    entries = ["thinking=false", "effort=low", "budget=3", "tools=none", 'quoted="True"', "empty="]
    assert parse_options(entries) == {
        "thinking": False,
        "effort": "low",
        "budget": 3,
        "tools": "none",
        "quoted": "True",
        "empty": "",
    }


@pytest.mark.parametrize("word", ["False", "FALSE", "True"])
def test_a_truth_value_in_other_letters_is_no_text(word: str) -> None:
    with pytest.raises(SettingsError, match=f"--template-option: thinking is the text '{word}', no truth value") as caught:
        parse_options(["effort=low", f"thinking={word}"])
    assert caught.value.hint == f"Write thinking={word.lower()}."


def test_a_comma_in_a_value_is_named_as_what_ended_it() -> None:
    with pytest.raises(SettingsError, match=r"'2\]' is not NAME=VALUE") as caught:
        parse_options(["sizes=[1", "2]"])
    assert caught.value.hint == "Write NAME=VALUE; a comma ends it."


def test_a_template_is_split_at_its_fields() -> None:
    assert split_template("{{}}{a.b[0]}\n{c?}!") == [("{}", "a.b[0]"), ("\n", "c?"), ("!", "")]


@pytest.mark.parametrize("text", ["{a", "a}", "{}", "{?}", "no field", "{a b..c}", "{{only}}"])
def test_a_template_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--prompt-template"):
        split_template(text)
