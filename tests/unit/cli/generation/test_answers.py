"""Where prompts come from, and what begins a session."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from pitstop.cli.generation.answers import Prompts
from pitstop.configs.errors import DataError, SettingsError


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pitstop.cli.generation.answers.is_terminal", lambda stream=None: True)


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


@pytest.mark.usefixtures("terminal")
def test_options_come_before_standard_input(tmp_path: Path) -> None:
    assert Prompts(("a", "b"), None, False).read(None) == ["a", "b"]
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\ntwo\n", encoding="utf-8")
    assert Prompts((), str(path), False).read(None) == ["one", "two"]


@pytest.mark.usefixtures("terminal")
def test_a_terminal_without_prompts_is_a_session_unless_an_option_needs_prompts() -> None:
    assert Prompts((), None, True).read(None) is None
    with pytest.raises(SettingsError, match="--json needs prompts"):
        Prompts((), None, False).read("--json")


def test_standard_input_has_a_prompt_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"one\ntwo\n")
    assert Prompts((), None, False).read("--json") == ["one", "two"]
    pipe(monkeypatch, b"\n")
    with pytest.raises(SettingsError, match="no prompt on standard input"):
        Prompts((), None, False).read(None)
    pipe(monkeypatch, b"\xff\xfe\n")
    with pytest.raises(DataError, match="not UTF-8"):
        Prompts((), None, False).read(None)


def test_contradictions_are_refused() -> None:
    with pytest.raises(SettingsError, match="Both --prompt and --prompts"):
        Prompts(("a",), "file", False).read(None)
    with pytest.raises(SettingsError, match="--multi-turn is for a session"):
        Prompts(("a",), None, True).read(None)
