"""Files in blocks: runs of lines between blank ones, with their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.trainers.tasks.ner.blocks import BadLine, Line, blocks, checked, number_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"\n \n\t\n", []),
        (b"a\nb\n\n\nc", [[(1, "a"), (2, "b")], [(5, "c")]]),
        (b"\xef\xbb\xbfa \n  \nb\t\n", [[(1, "a ")], [(3, "b\t")]]),
        (b"a\r\n\r\nb\r\n", [[(1, "a")], [(3, "b")]]),
    ],
    ids=["nothing", "blank", "two", "a byte order mark", "windows"],
)
def test_a_block_is_a_run_of_lines_that_are_not_blank(tmp_path: Path, text: bytes, expected: list[list[tuple[int, str]]]) -> None:
    (tmp_path / "file").write_bytes(text)
    assert [list(block) for block in blocks(tmp_path / "file", "file")] == expected


def test_bytes_that_are_no_text_are_found_in_their_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"good\nb\xfed\n")
    [[good, bad]] = blocks(tmp_path / "file", "file")
    assert checked(good) == "good"
    with pytest.raises(BadLine, match="not UTF-8 text") as caught:
        checked(bad)
    assert number_of(caught.value, [good, bad]) == 2


def test_an_error_that_names_no_line_is_about_the_first() -> None:
    assert number_of(ValueError("anything"), [Line(7, "a"), Line(8, "b")]) == 7
