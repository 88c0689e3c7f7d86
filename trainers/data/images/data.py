"""Images as training takes them: each is a sequence of one unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.trainers.data.counts import Counts, LeftOut
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.data.images.image_set import Images, ImageSet, Labels
from pitstop.trainers.data.order import held_out


class ImageData(Sequences):
    """The images of a set, all of one shape, in memory."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        count = len(images)
        left_out = LeftOut(bad=images.bad, bad_reasons=images.bad_reasons, notices=images.notices)
        self.counts = Counts.beside(left_out, used=count, tokens=count, learnt=count, cut=0, records=count, answers=0)
        self.fingerprint = images.fingerprint
        self._supervised = self._tokens = np.ones(count, dtype=np.int64)

    def pixels(self, numbers: np.ndarray) -> Images:
        """The images of these numbers, uint8 ``(n, channels, height, width)``."""
        pixels: Images = self.images.images[numbers]
        return pixels

    def labels(self, numbers: np.ndarray) -> Labels:
        """Their classes, int64 ``(n,)``, in the data set's own numbering."""
        labels: Labels = self.images.labels[numbers]
        return labels

    def first(self, count: int) -> ImageData:
        """The first ``count`` images."""
        return ImageData(self.images.part(np.arange(len(self)) < count))

    def in_words(self) -> str:
        """How many images of how many classes."""
        classes = int(np.count_nonzero(self.images.counts()))
        return f"{len(self):,} {'image' if len(self) == 1 else 'images'} of {classes} {'class' if classes == 1 else 'classes'}"

    def described(self) -> dict[str, Any]:
        """Counts, those of each class that is there, and the names of all in their numbering."""
        names, counts = self.images.class_names, self.images.counts()
        classes = {names[number]: int(counts[number]) for number in np.flatnonzero(counts).tolist()}
        return {
            "records": self.counts.records,
            "used": self.counts.used,
            "bad": self.counts.bad,
            "classes": classes,
            "class_names": list(names),
            "counts": self.counts.sums(),
        }


def hold_out(data: ImageData, fraction: float, *, seed: int) -> tuple[ImageData, ImageData]:
    """Split off ``fraction`` of the images of each class, at least one: (training, evaluation), a function of the seed.

    Raises ``DataError`` where a class has a single image.
    """
    is_held_out = np.zeros(len(data), dtype=bool)
    counts = data.images.counts()
    for number in np.flatnonzero(counts).tolist():
        members = np.flatnonzero(data.images.labels == number)
        if len(members) < 2:
            raise DataError(
                f"EVAL_FRACTION: the class {data.images.class_names[number]} has a single image.",
                hint="Give evaluation images with --eval-dataset, or leave the class out.",
            )
        is_held_out[members[held_out(len(members), fraction, seed=seed)]] = True
    evaluation = replace(data.images.part(is_held_out), bad=0, bad_reasons=(), notices=())  # they are of the rest
    return ImageData(data.images.part(~is_held_out)), ImageData(evaluation)
