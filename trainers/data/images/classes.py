"""Some classes out of a data set."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images.cifar100 import SUPERCLASSES
from pitstop.trainers.data.images.image_set import ImageSet

_LISTED = 120
_SUPERCLASSES = {name.casefold(): members for name, members in SUPERCLASSES.items()}


def choose_classes(images: ImageSet, classes: Sequence[str | int]) -> ImageSet:
    """Only the images of ``classes``, with labels and class names as they were.

    A class is given by its name, where case does not count and ``_``, ``-`` and a space are alike, or by its id. A name goes before
    an id: ``7`` is the class of this name where there is one.

    Raises:
        DataError: no class is given, there is no such class, a class is given twice, or has no image.
    """
    ids = class_ids(classes, images.class_names)
    counts = images.counts()
    for class_id in ids:
        if not counts[class_id]:
            raise DataError(
                f"The class {images.class_names[class_id]} has no image here.",
                hint=_listing(images.class_names, [index for index in range(len(counts)) if counts[index]]),
            )
    chosen = tuple(sorted(ids))
    return replace(images.part(np.isin(images.labels, chosen)), chosen=chosen)


def class_ids(classes: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """The ids of classes, in the order in which they are given; ``names`` has the name of every id.

    Raises ``DataError`` where none is given, there is no such class, or one is given twice.
    """
    if not classes:
        raise DataError("No class is chosen.", hint=_listing(names))
    by_id: dict[int, str | int] = {}
    for reference in classes:
        class_id = _id_of(reference, names)
        if class_id in by_id:
            raise DataError(
                f"The class {names[class_id]} is given twice: as {by_id[class_id]} and as {reference}.",
                hint="Name every class once.",
            )
        by_id[class_id] = reference
    return list(by_id)


def _id_of(reference: str | int, names: Sequence[str]) -> int:
    text = str(reference).strip()
    if text in names:
        return names.index(text)
    alike = [index for index, name in enumerate(names) if _folded(name) == _folded(text)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        candidates = ", ".join(f"{names[index]} ({index})" for index in alike)
        raise DataError(
            f"The class {text} may be any of several: {candidates}.", hint="Write the name as it stands here, or the id."
        )
    if re.fullmatch(r"[0-9]{1,9}", text) and int(text) < len(names):
        return int(text)
    raise DataError(f"There is no class {text}.", hint=_nearest(text, names) + _listing(names))


def _folded(name: str) -> str:
    return re.sub(r"[_\-\s]+", " ", unicodedata.normalize("NFC", name)).casefold()


def _nearest(text: str, names: Sequence[str]) -> str:
    members = _SUPERCLASSES.get(_folded(text), ())
    if members and set(members) <= set(names):
        return f"{text} is a superclass of CIFAR-100; name its classes: {', '.join(members)}. "
    folded = {_folded(name): name for name in names}
    close = [folded[match] for match in difflib.get_close_matches(_folded(text), folded, n=3)]
    return f"Did you mean {' or '.join(close)}? " if close else ""


def _listing(names: Sequence[str], ids: Sequence[int] | None = None) -> str:
    ids = range(len(names)) if ids is None else ids
    listed = ", ".join(f"{index} {names[index]}" for index in ids[:_LISTED])
    remainder = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
    return f"The classes: {listed}{remainder}."
