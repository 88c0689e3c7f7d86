"""``.env.example`` is generated, complete, and every line of it works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pitstop.configs.env_example import main, name_in_file, render, value_in_file
from pitstop.configs.leaves import Leaf, leaves
from pitstop.configs.load import load_settings
from pitstop.configs.values import parse


def test_the_file_in_the_repository_is_up_to_date(repository: Path) -> None:
    text = (repository / ".env.example").read_text(encoding="utf-8")
    assert text == render(), "run: python -m pitstop.configs.env_example"


def test_every_setting_is_there_once_with_its_meaning() -> None:
    names = re.findall(r"^# ([A-Z][A-Z0-9_]*)=", render(), re.MULTILINE)
    assert names == [name_in_file(leaf) for leaf in leaves()]
    flowing = re.sub(r"\s+#?\s*", " ", render())
    for leaf in leaves():
        assert leaf.help in flowing


def test_as_it_is_it_changes_nothing() -> None:
    Path(".env").write_text(render(), encoding="utf-8")
    assert load_settings(environ={}).settings == load_settings(env_file=Path("/dev/null"), environ={}).settings


def test_uncommented_as_a_whole_it_loads() -> None:
    Path(".env").write_text(re.sub(r"^# ([A-Z][A-Z0-9_]*=)", r"\1", render(), flags=re.MULTILINE), encoding="utf-8")
    loaded = load_settings(environ={}, require_model_and_data=True, check_overridden=True)
    assert {source.kind for source in loaded.sources.values()} == {"env-file"}


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.path)
def test_each_line_loads_alone_and_shows_the_default(leaf: Leaf) -> None:
    Path(".env").write_text(f"{name_in_file(leaf)}={value_in_file(leaf)}\n", encoding="utf-8")
    loaded = load_settings(environ={})
    assert loaded.sources[leaf.path].kind == "env-file"
    if leaf.default not in (None, []):
        assert parse(leaf, value_in_file(leaf).strip('"')) == leaf.default


def test_it_is_written_where_it_is_asked_for() -> None:
    assert main(["there.env"]) == 0
    assert Path("there.env").read_text(encoding="utf-8") == render()
