"""What tokens follow from besides the data: the tokenizer with its chat template, and the libraries that apply them."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from pitstop.trainers.data.cache.cache import sha256_of

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".msgpack", ".h5")
_LIBRARIES = ("pitstop", "tokenizers", "transformers", "jinja2")


def surroundings(tokenizer: Any, model: Path) -> dict[str, Any]:
    """What is part of every key of tokenised data, as JSON-able values.

    All files of the model's directory ``model`` but its weights count as the tokenizer's: which of them one reads, only it knows.
    """
    files = sorted(file for file in model.iterdir() if file.is_file() and file.suffix not in _WEIGHTS)
    described = [[file.name, sha256_of(file)] for file in files]
    said = [described, tokenizer.chat_template, type(tokenizer).__name__]
    return {
        "tokenizer": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
    }
