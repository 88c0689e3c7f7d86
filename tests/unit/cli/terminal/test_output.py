"""Plain output without a terminal, and JSON that is JSON."""

from __future__ import annotations

import io

import pytest

from pitstop.cli.terminal import output


def test_table_without_a_terminal_is_plain_aligned_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["Name", output.Column("Size", align="right")], [["a", "10"], ["long name", "9"]])
    assert capsys.readouterr().out.splitlines() == ["Name       Size", "a            10", "long name     9"]


def test_table_on_a_terminal_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda stream=None: True)
    output.table(["Name"], [["[red]name[/red]"]])
    assert "[red]name[/red]" in capsys.readouterr().out


def test_json_has_null_for_what_json_cannot_hold(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"loss": float("nan"), "rows": (float("inf"), 1.5), "text": "é"})
    assert capsys.readouterr().out == '{\n  "loss": null,\n  "rows": [\n    null,\n    1.5\n  ],\n  "text": "é"\n}\n'


def test_no_color_and_dumb_terminals_get_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert output.paint("x", "red", "bold", stream=Terminal()) == "\x1b[31;1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("x", "red", stream=Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output.paint("x", "red", stream=Terminal()) == "x"
    assert output.paint("x", "red", stream=io.StringIO()) == "x"


def test_a_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not output.is_terminal(stream)


def test_notices_and_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.notice("one")
    output.warn("two")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "one\nwarning: two\n"


def test_facts_are_lines_in_a_pipe_and_wrap_below_themselves_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [("path", "x" * 50), ("disk", "1 MiB")]
    output.print_facts(facts, width=8)
    assert capsys.readouterr().out == f"  path    {'x' * 50}\n  disk    1 MiB\n"
    monkeypatch.setattr(output, "is_terminal", lambda stream=None: True)
    monkeypatch.setenv("COLUMNS", "40")
    output.print_facts(facts, width=8)
    assert capsys.readouterr().out == f"  path    {'x' * 30}\n          {'x' * 20}\n  disk    1 MiB\n"


def test_text_is_cut_in_its_middle_or_at_its_end() -> None:
    assert output.shortened("abcdefghij", 10) == "abcdefghij"
    assert output.shortened("abcdefghijk", 6) == "abc…jk"
    assert output.shortened("abcdefghijk", 6, keep_start=True) == "abcde…"


def test_a_warning_may_have_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    output.warn("one", "two")
    assert capsys.readouterr().err == "warning: one\nhint: two\n"
