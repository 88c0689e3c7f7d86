"""How a table is fitted into the width of a terminal."""

from __future__ import annotations

from pitstop.cli.terminal.output import Column
from pitstop.cli.terminal.tables import fit

COLUMNS = [Column("Name"), Column("Step", "right"), Column("Saved")]
ROWS = [["a-name-that-is-rather-long", "10", "2026-12-01 11:10"], ["b", "2000", "-"]]


def test_what_fits_is_left_as_it_is() -> None:
    assert fit(COLUMNS, ROWS, 80, "Name", ("Saved",)) == (COLUMNS, ROWS, [])


def test_one_column_is_cut_in_its_middle_before_any_is_dropped() -> None:
    columns, cells, left_out = fit(COLUMNS, ROWS, 42, "Name", ("Saved",))
    assert (columns, left_out) == (COLUMNS, [])
    assert cells[0] == ["a-name-th…her-long", "10", "2026-12-01 11:10"] and cells[1][0] == "b"


def test_then_columns_are_dropped_and_named() -> None:
    columns, cells, left_out = fit(COLUMNS, ROWS, 38, "Name", ("Saved",))
    assert [column.title for column in columns] == ["Name", "Step"] and left_out == ["Saved"]
    assert cells[0] == ROWS[0][:2]


def test_the_start_may_be_kept_instead() -> None:
    _, cells, _ = fit(COLUMNS, ROWS, 42, "Name", (), keep_start=True)
    assert cells[0][0] == "a-name-that-is-ra…"
