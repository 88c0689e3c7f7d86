"""Samples as one picture, and the way between pixels and the numbers of a model."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pitstop.checkpointing.disk.storage import LocalStorage, atomic_write
from pitstop.trainers.data.images.image_set import Images

if TYPE_CHECKING:
    from PIL import Image

GAP = 2
"""Pixels between images."""

_BACKGROUND, _INK = (255, 255, 255), (0, 0, 0)


def to_uint8(values: NDArray[np.floating[Any]]) -> Images:
    """Numbers from -1 to 1, of any shape, to pixels: round(127.5 (x + 1)). What lies outside is clamped; NaN becomes 0."""
    clamped = np.nan_to_num(np.clip(values, -1.0, 1.0), nan=-1.0)
    pixels: Images = np.rint((clamped.astype(np.float32) + 1.0) * 127.5).astype(np.uint8)
    return pixels


def from_uint8(images: Images) -> NDArray[np.float32]:
    """Pixels, of any shape, to numbers from -1 to 1: x / 127.5 - 1, float32."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def save_grid(images: Images, path: Path, *, columns: int | None = None, labels: Sequence[str] | None = None) -> Images:
    """Write images, uint8 (n, 1 or 3, height, width), row by row into a PNG; a reader sees the old file or the new one, whole.

    There are as many ``columns`` as make the grid square, unless they are given. With ``labels``, one for each image, each has its text
    under it, and the columns are as wide as the longest. Returns the picture's pixels, uint8 (height, width, 3).

    Raises ``ValueError`` for other shapes, no images, no columns or another number of labels, and ``OSError`` from the disk.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != np.uint8 or not len(images):
        raise ValueError(f"images: wanted uint8 of shape (n, 1 or 3, h, w), not {images.dtype} of {images.shape}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels: {len(labels)} for {len(images)} images")
    if columns is not None and columns < 1:
        raise ValueError(f"columns: {columns}")
    file = io.BytesIO()
    grid = _drawn(images, columns or math.ceil(math.sqrt(len(images))), labels)
    grid.save(file, format="PNG")
    atomic_write(LocalStorage(), path, file.getvalue())
    return np.asarray(grid)


def _drawn(images: Images, columns: int, labels: Sequence[str] | None) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    height, width = images.shape[2:]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    font = ImageFont.load_default()
    boxes = [font.getbbox(text) for text in labels or ()]
    cell_width = max([width, *(math.ceil(box[2]) for box in boxes)])
    caption = max((math.ceil(box[3]) for box in boxes), default=0)
    across, down = cell_width + GAP, height + caption + GAP
    grid = Image.new("RGB", (columns * across - GAP, rows * down - GAP), _BACKGROUND)
    draw = ImageDraw.Draw(grid)
    for index, pixels in enumerate(images):
        x, y = index % columns * across, index // columns * down
        colours = np.ascontiguousarray(np.broadcast_to(pixels, (3, height, width)).transpose(1, 2, 0))
        grid.paste(Image.fromarray(colours), (x + (cell_width - width) // 2, y))
        if labels is not None:
            draw.text((x, y + height), labels[index], fill=_INK, font=font)
    return grid
