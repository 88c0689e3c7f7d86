"""Images with class labels, as every reader returns them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pitstop.configs.notices import Notice

Images: TypeAlias = NDArray[np.uint8]
"""Pixels from 0 to 255, of shape (n, channels, height, width)."""

Labels: TypeAlias = NDArray[np.int64]
"""Class ids, of shape (n,)."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, and for each the class that it shows.

    ``images`` is uint8 of shape (n, channels, height, width), the first row on top. ``labels`` is int64 of shape (n,), an index into
    ``class_names`` in the data set's own numbering, which a choice of classes leaves as it is; ``chosen`` holds the ids, in ascending
    order, that such a choice left, and is None where there was none. ``bad`` counts images that could not be read and were left out,
    ``bad_reasons`` are the first few of them; ``notices`` say what else was not read.

    Raises ``ValueError`` where shapes, types or labels do not fit together.
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    chosen: tuple[int, ...] | None = None
    bad: int = field(default=0, kw_only=True)
    bad_reasons: tuple[str, ...] = field(default=(), kw_only=True)
    notices: tuple[Notice, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images: wanted uint8 of 4 dimensions, not {self.images.dtype} of {self.images.ndim}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels: wanted int64, one for each image, not {self.labels.dtype} of shape {self.labels.shape}")
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f"labels: outside of 0 to {len(self.class_names) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def counts(self) -> Labels:
        """How many images each class has: int64 of shape (classes,), the classes that were not chosen included, with 0."""
        return np.bincount(self.labels, minlength=len(self.class_names)).astype(np.int64)

    def part(self, mask: NDArray[np.bool_]) -> ImageSet:
        """The images where ``mask``, bool of shape (n,), is true, in their order. Raises ``ValueError`` for any other mask."""
        if mask.dtype != np.bool_ or mask.shape != self.labels.shape:
            raise ValueError(f"mask: wanted bool of shape {self.labels.shape}, not {mask.dtype} of shape {mask.shape}")
        return replace(self, images=self.images[mask], labels=self.labels[mask])

    @cached_property
    def fingerprint(self) -> str:
        """Lower-case hexadecimal SHA-256 over the images and their shape, the labels, the names of the classes, and which were chosen."""
        head = {"shape": self.images.shape, "class_names": self.class_names, "chosen": self.chosen}
        digest = hashlib.sha256(
            json.dumps(head).encode() + b"\n"
        )  # JSON has no line break of its own: what follows is parted from it
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()
