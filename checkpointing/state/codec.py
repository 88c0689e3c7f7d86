"""Plain Python objects with tensors in them, as JSON and safetensors: what optimizers and schedulers call their state.

Nothing in these files names code: a value comes back as one of the types below or not at all. What JSON does not know
(tuples, dictionaries whose keys are no text, numbers that are not finite, tensors) becomes an object with one key that
begins with ``$``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from pitstop.configs.errors import CheckpointError

_MOST_NESTED = 60
_PLAIN = (type(None), bool, int, str)
_DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_HINT = "give what can be written as numbers, text, lists, dictionaries and tensors; nothing is ever pickled"


def encode(value: Any, tensors: dict[str, torch.Tensor], place: str) -> Any:
    """``value`` as JSON can hold it; its tensors are put into ``tensors`` under names that begin with ``place``.

    Numbers, text, None, lists, tuples, sets, dictionaries, counters, tensors, NumPy numbers and torch's types. ``CheckpointError``
    names the place of anything else.
    """
    return _encode(value, tensors, place, 0)


def _encode(value: Any, tensors: dict[str, torch.Tensor], place: str, depth: int) -> Any:
    if depth > _MOST_NESTED:
        raise CheckpointError(f"{place}: nested more than {_MOST_NESTED} deep", hint=_HINT)
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (float, np.generic)):
        return _encode_number(value.item() if isinstance(value, np.generic) else value, place)
    if isinstance(value, torch.Tensor):
        tensors[place] = value
        return {"$tensor": place}
    if isinstance(value, (torch.dtype, torch.device)):
        kind = "$dtype" if isinstance(value, torch.dtype) else "$device"
        return {kind: str(value).removeprefix("torch.")}
    return _encode_many(value, tensors, place, depth + 1)


def _encode_number(value: Any, place: str) -> Any:
    if isinstance(value, (bool, int, str)):
        return value
    if not isinstance(value, float):
        raise CheckpointError(f"{place}: a {type(value).__name__} cannot be saved", hint=_HINT)
    return float(value) if math.isfinite(value) else {"$float": repr(float(value))}


def _encode_many(value: Any, tensors: dict[str, torch.Tensor], place: str, depth: int) -> Any:
    def inner(item: Any, key: object) -> Any:
        return _encode(item, tensors, f"{place}/{key}", depth)

    if isinstance(value, Mapping):
        if not isinstance(value, Counter) and all(type(key) is str and not key.startswith("$") for key in value):
            return {key: inner(item, key) for key, item in value.items()}
        kind = "$counter" if isinstance(value, Counter) else "$items"
        return {kind: [[inner(key, f"{number}k"), inner(item, number)] for number, (key, item) in enumerate(value.items())]}
    if isinstance(value, (list, tuple)):
        items = [inner(item, number) for number, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, (set, frozenset)):
        return {"$set": [inner(item, number) for number, item in enumerate(sorted(value))]}
    raise CheckpointError(f"{place}: a {type(value).__name__} cannot be saved", hint=_HINT)


def decode(value: Any, tensors: Mapping[str, torch.Tensor], place: str) -> Any:
    """The inverse of ``encode``. ``CheckpointError`` for anything that it would not have written; ``place`` names the file."""
    try:
        return _decode(value, tensors)
    except (KeyError, TypeError, ValueError, RecursionError, RuntimeError) as error:
        raise CheckpointError(f"{place}: holds something that no state is written as ({str(error)[:200]})") from None


def _decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tagged = [key for key in value if key.startswith("$")]
    if not tagged:
        return {key: _decode(item, tensors) for key, item in value.items()}
    (kind,) = value
    return _decode_tagged(kind, value[kind], tensors)


def _decode_tagged(kind: str, content: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    readers: dict[str, Callable[[], Any]] = {
        "$tensor": lambda: tensors[content],
        "$float": lambda: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content],
        "$dtype": lambda: _DTYPES[content],
        "$device": lambda: torch.device(content),
        "$tuple": lambda: tuple(_decode(item, tensors) for item in content),
        "$set": lambda: {_decode(item, tensors) for item in content},
        "$items": lambda: {_decode(key, tensors): _decode(item, tensors) for key, item in content},
        "$counter": lambda: Counter({_decode(key, tensors): _decode(item, tensors) for key, item in content}),
    }
    return readers[kind]()


def tensors_in(value: Any) -> list[str]:
    """The names of the tensors that an encoded value refers to, sorted."""
    if isinstance(value, dict):
        names = [value["$tensor"]] if value.keys() == {"$tensor"} and isinstance(value["$tensor"], str) else []
        return sorted([*names, *(name for item in value.values() for name in tensors_in(item))])
    if isinstance(value, list):
        return sorted(name for item in value for name in tensors_in(item))
    return []
