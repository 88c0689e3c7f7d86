"""Images of one size and number of channels brought to what a model takes."""

from __future__ import annotations

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images.image_set import Images

MOST_PADDING = 8
"""Pixels that may be added to an axis: 28 becomes 32, but not 64, most of which would be empty."""

_LUMA = (299, 587, 114)  # thousandths


def fit(images: Images, size: int, channels: int) -> Images:
    """uint8 (n, c, h, w) → uint8 (n, ``channels``, ``size``, ``size``).

    Smaller images get a margin of zeros, even on both sides; an odd pixel goes to the right and the bottom. One channel becomes three
    by repetition, three become one by luma, Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded.

    Raises:
        DataError: the images are larger than ``size``, smaller by more than ``MOST_PADDING`` pixels, or have another number of channels
            than 1 or 3.
    """
    return _padded(_with_channels(images, channels), size)


def _padded(images: Images, size: int) -> Images:
    height, width = images.shape[2:]
    missing = [size - height, size - width]
    if not all(0 <= margin <= MOST_PADDING for margin in missing):
        larger = max(height, width)
        fitting = -(-larger // 4) * 4  # the model halves an image twice
        raise DataError(
            f"The images are of {width} × {height} pixels, and the model takes {size} × {size}.",
            hint=f"Choose a model config for images of {fitting} × {fitting}, or give the images as a folder of class-named folders, "
            "which are cropped and resized.",
        )
    if not any(missing):
        return images
    return np.pad(images, ((0, 0), (0, 0), *((margin // 2, margin - margin // 2) for margin in missing)))


def _with_channels(images: Images, channels: int) -> Images:
    present = images.shape[1]
    if present == channels:
        return images
    if (present, channels) == (1, 3):
        return np.repeat(images, 3, axis=1)
    if (present, channels) == (3, 1):
        return _luma(images)
    raise DataError(
        f"The images have {present} channels, and the model takes {channels}.",
        hint="Channels are converted between 1 (grey) and 3 (red, green, blue); choose a model config for one of these.",
    )


def _luma(images: Images) -> Images:
    total = np.full(images[:, 0].shape, 500, dtype=np.uint32)  # half of the divisor: rounds
    for channel, weight in enumerate(_LUMA):
        total += images[:, channel].astype(np.uint32) * weight
    return (total // 1000).astype(np.uint8)[:, None]
