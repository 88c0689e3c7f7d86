"""How runs are laid out beside each other."""

from __future__ import annotations

from pitstop.cli.reports.compare_text import blocks


def test_runs_that_do_not_fit_beside_each_other_stand_below() -> None:
    rows = [("a", ["1" * 10] * 4), ("b", ["2" * 60, "", "", ""])]
    together = [0, 1, 2, 3]
    assert blocks(["run_001"] * 4, rows, room=78) == [(together, 40)]  # 42 + 3 · 12
    assert blocks(["run_001"] * 4, rows, room=77) == [(together, 32)]
    assert blocks(["run_001"] * 4, rows, room=56) == [(together, 18)]  # 20 + 3 · 12
    assert blocks(["run_001"] * 4, rows, room=55) == [([0, 1, 2], 24), ([3], 24)]  # 26 + 12 + 12
    assert blocks(["run_001"] * 4, rows, room=10) == [([0], 12), ([1], 12), ([2], 12), ([3], 12)]
