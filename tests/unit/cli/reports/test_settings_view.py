"""Settings as rows: which are at their defaults, and how values are written."""

from __future__ import annotations

import pytest

from pitstop.cli.reports.settings_view import (
    SettingRow,
    loaded_rows,
    print_changed_settings,
    setting_text,
    sources_as_dict,
    stored_rows,
)
from pitstop.configs.load import load_settings


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (True, "true"), (5e-5, "5e-05"), ([], "none"), (["a", "b"], "a,b"), ("x", "x")],
)
def test_values_are_written_as_in_a_file(value: object, text: str) -> None:
    assert setting_text(value) == text


def test_an_unset_value_may_be_written_otherwise() -> None:
    assert setting_text(None, unset="-") == "-"


def test_a_value_equal_to_the_default_is_at_its_default_whoever_gave_it() -> None:
    loaded = load_settings(flags={"lora.rank": "32", "lora.alpha": "8"})
    rows = {row.path: row for row in loaded_rows(loaded)}
    assert rows["lora.rank"] == SettingRow("lora.rank", "32", "--lora-rank", True)
    assert rows["lora.alpha"] == SettingRow("lora.alpha", "8", "--lora-alpha", False)
    assert rows["training.method"] == SettingRow("training.method", "qlora", "default", True), "which a rule fills in"
    assert sources_as_dict(loaded)["lora.alpha"] == {"kind": "flag", "where": "--lora-alpha"}


def test_a_secret_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    row = next(row for row in loaded_rows(load_settings()) if row.path == "hub.token")
    assert "secret" not in row.value and not row.is_default


def test_of_a_stored_run_what_is_recorded_as_default_is_that() -> None:
    settings = {"lora": {"rank": 7, "alpha": 64}, "later": {"setting": 1}, "data": {"train": ["a"]}}
    rows = {row.path: row.is_default for row in stored_rows(settings, {"lora.rank": "default", "lora.alpha": "--lora-alpha"})}
    assert rows == {"lora.rank": True, "lora.alpha": True, "later.setting": False, "data.train": False}


def test_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [SettingRow("a", "1", "--a", False), SettingRow("b", "2", "default", True)]
    print_changed_settings(rows, "pitstop plan")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "1", "--a"]
    assert lines[2] == "1 more is at its default; pitstop plan --all lists every setting"
