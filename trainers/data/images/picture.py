"""One image file: decoded, cropped to a square and resized."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pitstop.configs.errors import first_line

if TYPE_CHECKING:
    from PIL import Image, ImageFile

SUFFIXES = frozenset({".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"})
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")  # the other decoders of the library stay out of reach of data
_PNG = b"\x89PNG\r\n\x1a\n"
_BEGINNINGS = (_PNG, b"\xff\xd8\xff", b"BM", b"GIF8")  # of files without an ending, PPM's being too short to tell
_DEPTHS = (8, 12)  # bits that values may have in a file of 16


class BadImage(Exception):
    """A file that is no image, or a damaged one; the text says why."""


def is_picture(path: Path) -> bool:
    """Whether a file is to be read as an image: by its ending in any case or, where it has none, by its first bytes.

    One that cannot be opened counts as one, so that reading it tells why.
    """
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return True
    return start.startswith(_BEGINNINGS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def brightest(path: Path) -> int | None:
    """The largest value of an image of 16 bits; None for any other image, and for what is none."""
    from PIL import Image

    try:
        with path.open("rb") as file:
            start = file.read(25)
        if not (start.startswith(_PNG) and start[24] == 16) and not start.startswith((b"P2", b"P5")):  # cheaper than to open it
            return None
        with _failures_told(), Image.open(path, formats=_FORMATS) as opened:
            values = _sixteen_bits(opened, path)
            return int(values.max()) if values is not None else None
    except (BadImage, OSError, IndexError):
        return None  # which reading it tells


def depth_of(brightest: int) -> int:
    """The bits (8, 12 or 16) of values up to ``brightest`` in files of 16: other programs store pictures of fewer bits in such files."""
    return next((depth for depth in _DEPTHS if brightest < 1 << depth), 16)


def read_picture(path: Path, size: int, *, depth: int = 16) -> NDArray[np.uint8]:
    """The middle square of an image in a file, resized by Lanczos' method: uint8 (3, ``size``, ``size``), red first.

    The image stands as its EXIF orientation says; of a GIF the first frame is taken, and what is transparent becomes white. ``depth`` says
    how many bits the values of an image of 16 bits have. Raises ``BadImage``, also for an image of so many pixels that Pillow
    takes it for an attack.
    """
    from PIL import Image, ImageOps

    with _failures_told():
        with Image.open(path, formats=_FORMATS) as opened:
            image = _as_rgb(ImageOps.exif_transpose(_eight_bits(opened, path, depth)))
        side = min(image.size)
        x, y = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((x, y, x + side, y + side))  # resize(box=…) would let what lies outside shine in
        return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


def _sixteen_bits(image: ImageFile.ImageFile, path: Path) -> NDArray[Any] | None:
    """The values of an image of 16 bits of grey or colours as they stand in the file; None for any other image."""
    from PIL import Image

    if image.mode.startswith("I"):
        return np.asarray(image)
    layout = str(image.tile[0].args) if image.tile else ""
    if layout not in ("RGB;16B", "RGBA;16B"):
        return None
    upper = np.asarray(image).astype(np.uint16) << 8
    with Image.open(path, formats=_FORMATS) as again:
        # Pillow gives one byte of two: of values taken for little-endian that is the lower one.
        again.tile = [again.tile[0]._replace(args=layout.replace(";16B", ";16L"))]
        return upper | np.asarray(again).astype(np.uint16)


def _eight_bits(image: ImageFile.ImageFile, path: Path, depth: int) -> Image.Image:
    """An image of 16 bits as one of 8, its orientation kept; any other as it is."""
    from PIL import Image

    if not image.mode.startswith("I") and depth == 16:  # Pillow has taken the upper byte already; of grey it would clip
        return image
    values = _sixteen_bits(image, path)
    if values is None:
        return image
    narrowed = Image.fromarray(np.minimum(values >> (depth - 8), 255).astype(np.uint8))
    if "exif" in image.info:
        narrowed.info["exif"] = image.info["exif"]
    return narrowed


def _as_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

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
