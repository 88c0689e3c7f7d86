"""The configuration of a model from scratch: data in a file that the user wrote, so nothing in it may run code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import read_regular_file
from pitstop.checkpointing.store.model_files import CODE_KEYS, MAX_BYTES, names_a_kernel, pairs
from pitstop.configs.errors import ModelError, first_line
from pitstop.trainers.models.foreign_code import needs_code

BUILDING = (ValueError, LookupError, TypeError, AttributeError, ImportError, ArithmeticError, AssertionError)
"""What a library raises that computes with the values of a configuration before it looks at them."""

_HINT = "Take the config.json of a model whose architecture transformers has, and change its sizes."


def read_model_config(path: Path) -> Any:
    """transformers' configuration in the JSON file ``path``. ``ModelError`` says what is wrong with it."""
    content = _content(path)
    for key, value in pairs(content):
        if key in CODE_KEYS:
            raise needs_code(path, key)
        if key.endswith("_implementation") and names_a_kernel(value):
            raise needs_code(path, f"{key} names a kernel on the Hub")
    if "quantization_config" in content:
        raise ModelError(
            f"{path} asks for quantised weights, which cannot all be trained.", hint="Leave quantization_config out."
        )
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    model_type = content.get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(f"{path}: model_type is missing.", hint=_HINT)
    try:
        return AutoConfig.for_model(**content)
    except (StrictDataclassError, *BUILDING) as error:
        reason = first_line(error.__cause__ or error)
        raise ModelError(f"{path} is not a configuration of a model: {reason}", hint=_HINT) from error


def config_digest(path: Path, seed: int) -> bytes:
    """What a model from scratch is, in bytes: its configuration, whatever the order of its keys, and the seed of its weights."""
    content = json.dumps(_content(path), sort_keys=True)
    return hashlib.sha256(f"from scratch {seed} {content}".encode()).digest()


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular_file(path.resolve(), limit=MAX_BYTES))
    except OSError as error:
        raise ModelError(
            f"MODEL_CONFIG = {path} cannot be read: {error.strerror or error}.", hint="Give --model-config FILE."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}.", hint=_HINT) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: a JSON object is expected.", hint=_HINT)
    return content
