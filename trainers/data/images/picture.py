"""One image file: decoded, cropped to a square and resized."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pitstop.configs.errors import first_line

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # the other decoders of the library stay out of reach of data


class BadImage(Exception):
    """A file that is no image, or a damaged one; the text says why."""


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """The middle square of an image in a file, resized by Lanczos' method: uint8 (3, ``size``, ``size``), red first.

    The image stands as its EXIF orientation says; of a GIF the first frame is taken, and what is transparent becomes white. Raises
    ``BadImage``, also for an image of so many pixels that Pillow takes it for an attack.
    """
    from PIL import Image, ImageOps

    with _failures_told():
        with Image.open(path, formats=_FORMATS) as opened:
            image = _as_rgb(ImageOps.exif_transpose(opened))
        side = min(image.size)
        x, y = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((x, y, x + side, y + side))  # resize(box=…) would let what lies outside shine in
        return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 8
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


@contextmanager
def _failures_told() -> Iterator[None]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadImage(f"too many pixels: {first_line(error)}") from error
        except _WHAT_DECODERS_RAISE as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise BadImage(f"not a readable image: {reason}") from error


# Pillow's own error is an OSError; its decoders let through what they stumble over.
_WHAT_DECODERS_RAISE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error, zlib.error,
)  # fmt: skip
