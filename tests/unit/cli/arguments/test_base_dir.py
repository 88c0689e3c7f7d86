"""Where the runs are, for commands that read no other setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.cli.arguments.base_dir import base_directory, existing_base_directory
from pitstop.configs.errors import RunError, SettingsError
from pitstop.configs.load import load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OUTPUT_DIR", "PITSTOP_OUTPUT_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_flag_then_environment_then_file_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_directory(None, None) == Path("checkpoints")
    Path(".env").write_text("OUTPUT_DIR=from_file\n", encoding="utf-8")
    assert base_directory(None, None) == Path("from_file")
    monkeypatch.setenv("OUTPUT_DIR", "from_environment")
    assert base_directory(None, None) == Path("from_environment")
    monkeypatch.setenv("PITSTOP_OUTPUT_DIR", "from_own_name")
    assert base_directory(None, None) == Path("from_own_name")
    assert base_directory("~/runs", None) == Path("~/runs").expanduser()


def test_an_empty_value_names_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="--base-dir is empty"):
        base_directory(" ", None)
    monkeypatch.setenv("OUTPUT_DIR", "")
    with pytest.raises(SettingsError, match="OUTPUT_DIR in the environment is empty"):
        base_directory(None, None)


def test_a_named_file_must_be_there_and_be_text() -> None:
    with pytest.raises(SettingsError, match=r"There is no file prod\.env"):
        base_directory(None, Path("prod.env"))
    Path("prod.env").write_bytes(b"OUTPUT_DIR=\xff")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        base_directory(None, Path("prod.env"))


@pytest.mark.parametrize("line", ["OUTPUT_DIR=elsewhere", "PITSTOP_OUTPUT_DIR=a\nPITSTOP_OUTPUT_DIR=b", "one more word"])
def test_a_file_that_train_refuses_is_refused_here(line: str) -> None:
    Path(".env").write_text(f"OUTPUT_DIR=runs\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        base_directory(None, None)
    with pytest.raises(SettingsError) as refused_by_train:
        load_settings()
    assert refused.value.message == refused_by_train.value.message


def test_the_environment_fills_in_and_a_directory_called_env_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISK", "/data")
    Path(".env").write_text("export OUTPUT_DIR='${DISK}/runs'\nDISK=/none\n", encoding="utf-8")
    assert str(load_settings().settings.training.checkpoint.base_dir) == str(base_directory(None, None))
    Path(".env").unlink()
    Path(".env").mkdir()
    assert base_directory(None, None) == Path("checkpoints")


def test_some_commands_need_a_directory_that_is_there() -> None:
    with pytest.raises(RunError, match="there is no directory checkpoints"):
        existing_base_directory(None, None)
    Path("checkpoints").mkdir()
    assert existing_base_directory(None, None) == Path("checkpoints")
