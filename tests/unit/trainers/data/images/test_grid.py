"""Grids of samples, and pixels to numbers and back."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pitstop.trainers.data.images import grid
from pitstop.trainers.data.images.grid import from_uint8, save_grid, to_uint8


def colours(*values: int, channels: int = 3, height: int = 4, width: int = 6) -> np.ndarray:
    """Images of one colour each."""
    return np.stack([np.full((channels, height, width), value, dtype=np.uint8) for value in values])


def written(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


@pytest.mark.parametrize(
    ("number", "pixel"),
    # 127.5 (x + 1): -0.5 → 63.75, 0.25 → 159.375, 0.999 → 254.87, 0.99 → 253.725; what is in the middle goes to the even one
    [(-1.0, 0), (1.0, 255), (-0.5, 64), (0.0, 128), (0.25, 159), (0.99, 254), (0.999, 255), (-7.0, 0), (3.0, 255)],
)
def test_numbers_become_pixels(number: float, pixel: int) -> None:
    assert to_uint8(np.full((1, 1, 1, 1), number, dtype=np.float32)).tolist() == [[[[pixel]]]]


def test_what_diverged_can_be_shown() -> None:
    pixels = to_uint8(np.array([np.nan, np.inf, -np.inf], dtype=np.float32))
    assert (pixels.dtype, pixels.tolist()) == (np.uint8, [0, 255, 0])


def test_pixels_become_numbers() -> None:
    numbers = from_uint8(np.array([0, 51, 255], dtype=np.uint8))
    assert numbers.dtype == np.float32
    assert numbers == pytest.approx(np.array([-1.0, -0.6, 1.0]), abs=1e-6)
    assert (numbers[0], numbers[2]) == (-1.0, 1.0)


def test_every_pixel_survives_the_way_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    for dtype in (np.float32, np.float64):
        assert np.array_equal(to_uint8(from_uint8(pixels).astype(dtype)), pixels)


def test_a_grid_is_square_with_gaps_of_two_pixels(tmp_path: Path) -> None:
    save_grid(colours(10, 20, 30), tmp_path / "x.png")
    picture = written(tmp_path / "x.png")
    assert picture.shape == (4 + 2 + 4, 6 + 2 + 6, 3)
    assert [picture[y, x].tolist() for y, x in ((0, 0), (3, 5), (0, 8), (6, 0), (9, 5))] == [
        [v] * 3 for v in (10, 10, 20, 30, 30)
    ]
    assert (picture[4:6] == 255).all() and (picture[:, 6:8] == 255).all()
    assert (picture[6:, 8:] == 255).all(), "where there is no image"


def test_colours_and_rows_are_where_they_belong(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    save_grid(image, tmp_path / "x.png")
    assert np.array_equal(written(tmp_path / "x.png"), image[0].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("columns", "shape"), [(1, (5 * 4 + 8, 6)), (5, (4, 5 * 6 + 8)), (9, (4, 5 * 6 + 8)), (None, (10, 3 * 6 + 4))]
)
def test_columns_may_be_given(tmp_path: Path, columns: int | None, shape: tuple[int, int]) -> None:
    save_grid(colours(1, 2, 3, 4, 5, channels=1), tmp_path / "x.png", columns=columns)
    assert written(tmp_path / "x.png").shape == (*shape, 3)


def test_labels_stand_under_their_images_and_widen_the_columns(tmp_path: Path) -> None:
    save_grid(colours(10, 20), tmp_path / "x.png", labels=["aquarium_fish", "ox"])
    picture = written(tmp_path / "x.png")
    height, width = picture.shape[:2]
    assert height > 4 + 5 and width > 2 * 40 + 2
    column = (width - 2) // 2
    first, second = picture[4:, :column], picture[4:, column + 2 :]
    assert (first < 100).sum() > (second < 100).sum() > 0
    assert picture[0, (column - 6) // 2].tolist() == [10] * 3, "an image stands in the middle of its column"


def test_the_file_is_private_and_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    save_grid(colours(1), path)
    save_grid(colours(2), path)
    assert written(path)[0, 0].tolist() == [2] * 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(grid.LocalStorage, "write", full)
    with pytest.raises(OSError, match="No space"):
        save_grid(colours(3), path)
    assert written(path)[0, 0].tolist() == [2] * 3
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_grid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    for images in (
        np.zeros((1, 3, 2, 2)),
        np.zeros((3, 2, 2), np.uint8),
        np.zeros((1, 2, 2, 2), np.uint8),
        np.zeros((0, 3, 2, 2), np.uint8),
    ):
        with pytest.raises(ValueError, match="images: wanted"):
            save_grid(images, path)
    with pytest.raises(ValueError, match="labels: 1 for 2 images"):
        save_grid(colours(1, 2), path, labels=["a"])
    with pytest.raises(ValueError, match="columns: 0"):
        save_grid(colours(1), path, columns=0)
    assert not path.exists()
