"""Curves in plain characters, beside pictures that were drawn by hand."""

from __future__ import annotations

from pitstop.cli.terminal.plot import Curve, PlotStyle, plot

BRAILLE = PlotStyle(braille=True, lines=True)
DOWN, UP = [(0, 2), (8, 1)], [(0, 1), (8, 2)]


def test_a_line_goes_from_corner_to_corner() -> None:
    # Nine columns and three rows: a quarter of a row a column, so that the rows change at columns 2 and 6.
    assert plot([Curve(0, DOWN)], width=14, height=3, x_title="n") == [
        "  2 +oo",
        "1.5 +  oooo",
        "  1 +      ooo",
        "    +---------",
        "     0   n   8",
    ]


def test_two_lines_have_marks_of_their_own_and_take_turns_where_they_meet() -> None:
    crossing = plot([Curve(0, DOWN), Curve(1, UP)], width=14, height=5, x_title="n")
    assert crossing[:5] == [
        "  2 +o      xx",
        "    | oo  xx",
        "1.5 +   xo",
        "    | xx  oo",
        "  1 +x      oo",
    ]
    assert plot([Curve(0, DOWN), Curve(1, DOWN)], width=14, height=3)[:3] == ["  2 +ox", "1.5 +  oxox", "  1 +      oxo"]


def test_braille_has_two_by_four_dots_in_a_character() -> None:
    # 16 by 16 dots on the diagonal. In each character two of them rise to the right: dots 4 and 2 above 8 and ... of Unicode.
    lines = plot([Curve(0, [(0, 0), (7, 7)])], width=11, height=4, style=BRAILLE, x_title="n")
    low, high = "⡠", "⠊"  # bottom left with third right; second left with top right
    assert [line[-2:] for line in lines[:4]] == [low + high] * 4
    assert lines[0] == f"    7 ┤      {low}{high}"
    assert lines[3:] == [f"    0 ┤{low}{high}", "      └────────", "       0  n   7"]
    assert ord(low) == 0x2800 + 0x40 + 0x20 and ord(high) == 0x2800 + 0x02 + 0x08


def test_every_dot_of_a_braille_character_is_in_its_place() -> None:
    column = plot([Curve(0, [(0, 0), (0, 3), (99, 3)])], width=60, height=1, style=BRAILLE)[0]
    assert column[3] == chr(0x2800 + 0x01 + 0x02 + 0x04 + 0x40 + 0x08)  # all on the left, the topmost on the right
    assert column[4] == chr(0x2800 + 0x01 + 0x08)
    flat = plot([Curve(0, [(0, 1), (9, 1)])], width=60, height=1, style=BRAILLE)[0]
    assert set(flat.partition("┤")[2]) == {chr(0x2800 + 0x04 + 0x20)}  # the third of four rows is nearest to the middle


def test_a_dashed_line_leaves_gaps_but_no_point_out() -> None:
    assert plot([Curve(0, [(0, 1), (16, 1)], dashed=True)], width=23, height=1)[0] == "1.05 +ooo   ooo   ooo o"


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    points = [(0, 100), (4, 10), (8, 1)]
    assert plot([Curve(0, points)], width=14, height=5, logarithmic=True, style=PlotStyle(lines=True)) == [
        "100 ┤o",
        "    │ oo",
        " 10 ┤   oo",
        "    │     oo",
        "  1 ┤       oo",
        "    └─────────",
        "     0  step 8",
    ]


def test_a_single_point_and_a_flat_line_stand_in_the_middle() -> None:
    assert plot([Curve(2, [(5, 1)])], width=14, height=3)[:3] == ["1.05 +", "   1 ++", "0.95 +"]
    assert plot([Curve(0, [(0, 0), (8, 0)])], width=16, height=3)[:3] == [" 0.05 +", "    0 +ooooooooo", "-0.05 +"]


def test_no_points_are_no_lines_and_an_empty_curve_draws_nothing() -> None:
    assert plot([], width=80) == plot([Curve(0, [])], width=80) == []
    assert plot([Curve(1, []), Curve(0, DOWN)], width=14, height=3) == plot([Curve(0, DOWN)], width=14, height=3)


def test_no_line_is_wider_than_asked_for() -> None:
    points = [(0, 0.0001), (123_456, 3.0), (1e99, -1e99)]
    for width in (30, 80, 140):
        lines = plot([Curve(0, points), Curve(1, points, dashed=True)], width=width, style=BRAILLE)
        assert max(map(len, lines)) == width
        assert len(lines) == 12 + 2


def test_what_belongs_to_a_curve_is_painted_by_its_number() -> None:
    lines = plot([Curve(3, DOWN)], width=14, height=3, paint=lambda text, number: f"<{number}{text}>")
    assert lines[0] == "  2 +<3*><3*>"
    assert "<" not in "".join(lines[3:])
