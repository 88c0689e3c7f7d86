"""A ``.env`` file as it stands: names, values and lines."""

from __future__ import annotations

from pathlib import Path

from pitstop.configs.env_file import Assignment, assignments


def test_assignments_have_their_lines_and_are_filled_in(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# comment\n\nexport A='one two'\n\nB=${A}/${HOME}/${NONE}x\nC=\n", encoding="utf-8")
    lines = list(assignments(path, {"HOME": "/root"}))
    assert lines == [Assignment("A", "one two", 3), Assignment("B", "one two//root/x", 5), Assignment("C", "", 6)]
