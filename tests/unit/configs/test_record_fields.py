"""What settings say of fields is checked before a record is read."""

from __future__ import annotations

import pytest

from pitstop.configs.errors import SettingsError
from pitstop.configs.record_fields import parse_columns, parse_roles, split_template


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


def test_a_template_is_split_at_its_fields() -> None:
    assert split_template("{{}}{a.b[0]}\n{c?}!") == [("{}", "a.b[0]"), ("\n", "c?"), ("!", "")]


@pytest.mark.parametrize("text", ["{a", "a}", "{}", "{?}", "no field", "{a b..c}", "{{only}}"])
def test_a_template_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--prompt-template"):
        split_template(text)
