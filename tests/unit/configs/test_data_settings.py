"""A data set may be an object in YAML: its place is what a flag would say, its own settings go beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.datasets import DataSource, split_entry
from pitstop.configs.errors import SettingsError
from pitstop.configs.load import load_recorded, load_settings, settings_to_dict
from pitstop.configs.schema import Settings

YAML = """
data:
  learn: last
  train:
    - {path: chats.jsonl, weight: 0.7, learn: all}
    - path: owner/name
      config: en
      split: "train[:10%]"
      revision: 3f2c1a
      weight: 0.3
      shape: prompt
      columns: {prompt: question, completion: "answers.text[0]"}
      max_records: 1e3
"""
OWN = {"columns": ["prompt=question", "completion=answers.text[0]"], "max_records": 1000, "shape": "prompt"}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of its own, with ``YAML`` in a file."""
    monkeypatch.chdir(tmp_path)
    Path("conf.yaml").write_text(YAML)


def _load(text: str | None = None, environ: Any = None, **flags: Any) -> Settings:
    if text is not None:
        Path("conf.yaml").write_text(text)
    given = {path.replace("__", "."): value for path, value in flags.items()}
    return load_settings(config_files=["conf.yaml"], environ=environ or {}, flags=given).settings


def test_entries_have_places_weights_and_settings_of_their_own() -> None:
    settings = _load()
    assert settings.data.train == ["chats.jsonl:0.7", "owner/name@3f2c1a:en:train[:10%]:0.3"] and settings.data.learn == "last"
    assert settings.data.training_sources == (
        DataSource("chats.jsonl", 0.7, {"learn": "all"}),
        DataSource("owner/name@3f2c1a:en:train[:10%]", 0.3, OWN),
    )
    assert settings.data.evaluation_sources == settings.data.training_sources


def test_a_flag_wins_over_what_is_an_entry_s_own() -> None:
    sources = _load(data__learn="last", data__max_records=5).data.training_sources
    assert [dict(source.settings) for source in sources] == [{}, {key: OWN[key] for key in ("columns", "shape")}]


def test_data_sets_of_a_flag_or_the_environment_have_nothing_of_the_file_s() -> None:
    for settings in (_load(data__train=["a.jsonl", "b.jsonl"]), _load(environ={"DATASET_PATH": "a.jsonl,b.jsonl"})):
        assert settings.data.training_sources == (DataSource("a.jsonl"), DataSource("b.jsonl"))


def test_a_later_file_s_data_sets_have_nothing_of_an_earlier_one_s() -> None:
    Path("later.yaml").write_text("data: {train: [a.jsonl, b.jsonl]}")
    settings = load_settings(config_files=["conf.yaml", "later.yaml"], environ={}).settings
    assert settings.data.training_sources == (DataSource("a.jsonl"), DataSource("b.jsonl"))


def test_texts_and_objects_stand_beside_each_other_and_evaluation_has_its_own() -> None:
    settings = _load("data: {train: [a.jsonl, {path: b.jsonl, learn: last}], eval: [{path: c.jsonl, group_by: doc}]}")
    assert settings.data.training_sources == (DataSource("a.jsonl"), DataSource("b.jsonl", None, {"learn": "last"}))
    assert settings.data.evaluation_sources == (DataSource("c.jsonl", None, {"group_by": "doc"}),)


def test_a_run_keeps_them_where_its_data_moves() -> None:
    recorded = json.loads(json.dumps(settings_to_dict(_load())))
    again = load_recorded(recorded, environ={}).settings
    assert again.data.training_sources == _load().data.training_sources
    moved = load_recorded(recorded, flags={"data.train": ["x/chats.jsonl:0.7", "y/name:0.3"]}, environ={}).settings
    assert [source.settings for source in moved.data.training_sources] == [
        source.settings for source in again.data.training_sources
    ]
    fewer = load_recorded(recorded, flags={"data.train": ["x/chats.jsonl"]}, environ={}).settings
    assert fewer.data.training_sources == (DataSource("x/chats.jsonl"),)


def test_a_text_of_an_entry_comes_from_its_file() -> None:
    Path("question.txt").write_text("{q}\n")
    (source,) = _load("data: {train: [{path: a.jsonl, prompt_template: '@question.txt'}]}").data.training_sources
    assert source.settings == {"prompt_template": "{q}\n"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{learn: last}", "conf.yaml line 1: a data set needs a path."),
        ("{path: a.jsonl, lern: last}", "conf.yaml line 1: a data set has no 'lern'."),
        ("{path: a.jsonl, learn: first}", "data.learn (conf.yaml line 1): 'first' is not one of all, last, everything."),
        ("{path: a.jsonl, columns: [x]}", "data.columns (conf.yaml line 1): 'x' is not NAME=FIELD."),
        ("{path: a.jsonl, max_records: 0}", "data.max_records (conf.yaml line 1): '0' is not a whole number of at least 1"),
        ("{path: [a]}", "conf.yaml line 1: a data set needs a path."),
        ("{path: o/n, split: [train, test]}", "conf.yaml line 1: a data set has a single split."),
        ("{path: a.jsonl, path: b.jsonl}", "conf.yaml line 1: path stands there already on line 1."),
        ("{path: a.jsonl, columns: {system: , system: b}}", "conf.yaml line 1: system stands there already on line 1."),
    ],
)
def test_a_mistake_in_an_entry_is_named_with_its_line(entry: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(f"data: {{train: [{entry}]}}")
    assert caught.value.message.startswith(message)


def test_settings_of_records_are_for_the_task_that_reads_them() -> None:
    with pytest.raises(SettingsError, match=r"data\.learn .* is not for the task ner"):
        _load("data: {train: [{path: a.jsonl, learn: last}]}", training__task="ner")
    assert _load("data: {train: [{path: a.jsonl, max_records: 3}]}", training__task="ner").data.training_sources[0].settings


def test_a_split_without_a_config_keeps_its_colon() -> None:
    assert split_entry({"path": "owner/name", "split": "test"}, "here") == ("owner/name::test", "{}")
    assert split_entry({"path": "owner/name", "config": "en"}, "here") == ("owner/name:en", "{}")
