from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.card.curve import loss_curve

BLUE, RED = (0x2F, 0x6F, 0xB5), (0xD1, 0x49, 0x5B)


def pixels(picture: bytes | None) -> Any:
    from PIL import Image

    assert picture is not None
    image = Image.open(io.BytesIO(picture))
    image.load()
    assert image.format == "PNG"
    return image


def has(picture: bytes | None, colour: tuple[int, int, int]) -> bool:
    return any(pixel == colour for _, pixel in pixels(picture).convert("RGB").getcolors(1 << 20))


def rows(count: int = 20, **more: Any) -> list[dict[str, Any]]:
    return [{"step": step, "loss": 2 / step, **more} for step in range(1, count + 1)]


def test_loss_and_validation_are_drawn_on_white() -> None:
    picture = loss_curve([*rows(), {"step": 20, "loss": 0.1, "val_loss": 0.2}], "a-run")
    image = pixels(picture)
    assert image.size == (960, 540)
    assert image.convert("RGBA").getextrema()[3] == (255, 255), "opaque"
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert has(picture, BLUE) and has(picture, RED)


def test_validation_is_left_out_where_there_is_none() -> None:
    picture = loss_curve(rows(), "a-run")
    assert has(picture, BLUE) and not has(picture, RED)


def test_validation_alone_is_a_curve() -> None:
    assert has(loss_curve([{"step": 5, "val_loss": 0.5}], "a-run"), RED)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "text", True, 10**400, 1e300, [1]])
def test_what_is_no_finite_number_is_left_out(value: Any) -> None:
    assert loss_curve([{"step": 1, "loss": value}, {"step": value, "loss": 1.0}], "a-run") is None
    some = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": value}, {"step": 3, "loss": 1.0}]
    assert loss_curve(some, "a-run") == loss_curve([some[0], some[2]], "a-run")


def test_no_rows_give_no_picture() -> None:
    assert loss_curve([], "a-run") is None
    assert loss_curve([{"step": 1}, {}], "a-run") is None


def test_one_row_is_a_point() -> None:
    assert has(loss_curve([{"step": 1, "loss": 2.5}], "a-run"), BLUE)


@pytest.mark.parametrize("loss", [0.0, -1.0, 1e-12, 1e90])
def test_any_size_of_loss_can_be_drawn(loss: float) -> None:
    assert has(loss_curve([*rows(3), {"step": 9, "loss": loss}], "a-run"), BLUE)


def test_the_same_rows_give_the_same_bytes_whatever_their_order() -> None:
    shuffled = rows()[::2] + rows()[1::2]
    assert loss_curve(rows(), "a-run") == loss_curve(shuffled, "a-run")


@pytest.mark.parametrize("title", ["$x_1$ $", "$\\frac{$", "line\nline", "日本 \x1b[31m", "x" * 5000, ""])
def test_any_title_is_shown_as_it_is(title: str, recwarn: pytest.WarningsRecorder) -> None:
    assert pixels(loss_curve(rows(), title)).size == (960, 540)
    assert not [warning for warning in recwarn if "lyph" in str(warning.message)]


def test_settings_of_matplotlib_that_lie_about_change_nothing_and_pyplot_is_not_imported() -> None:
    Path("matplotlibrc").write_text("text.usetex: True\nfigure.facecolor: black\nbackend: tkagg\n")
    code = (
        "import sys\nfrom pitstop.checkpointing.card.curve import loss_curve\n"
        "assert 'matplotlib' not in sys.modules\n"
        "picture = loss_curve([{'step': 1, 'loss': 2.5}], 'a-run')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "sys.stdout.buffer.write(picture)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == loss_curve([{"step": 1, "loss": 2.5}], "a-run")
