"""The files of a whole model in a checkpoint: no reference to code in them, and weights that are as their index says."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import read_regular_file
from pitstop.checkpointing.disk.tensor_headers import TensorEntry, read_header
from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError

CODE_KEYS = {"auto_map", "auto_mapping", "custom_pipelines", "custom_generate", "trust_remote_code", "transformers_weights"}
"""Keys by which a library would fetch and run code, or take weights from elsewhere."""

MAX_BYTES = 256 * 1024 * 1024
"""Of one JSON file: tokenizer.json of a large vocabulary has some tens of megabytes."""

_VOCABULARY = {"tokenizer.json", "vocab.json", "added_tokens.json"}  # their keys are tokens, any word may be one


def pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth of parsed JSON."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def names_a_kernel(value: Any) -> bool:
    """Whether an attention or expert implementation is one that would be downloaded and run."""
    texts = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(text, str) and ("/" in text or ":" in text) for text in texts)


def check_model(directory: Path, names: Collection[str]) -> dict[str, TensorEntry]:
    """The tensors of the whole model whose files ``names`` lie in ``directory``, all headers and descriptions checked.

    Raises ``CheckpointError`` for a reference to code, a config that describes no model, and weights that are not as their
    index says.
    """
    for name in sorted(names):
        if name.endswith(".json") and name not in _VOCABULARY and file_sets.is_model_file(name):
            for key, value in pairs(_object(directory / name)):
                if key in CODE_KEYS or (key.endswith("_implementation") and names_a_kernel(value)):
                    raise CheckpointError(f"{directory / name} refers to code ({key}), which no checkpoint does")
    config = _object(directory / file_sets.MODEL_CONFIG)
    if not isinstance(config.get("model_type"), str) or config.get("quantization_config") is not None:
        raise CheckpointError(f"{directory / file_sets.MODEL_CONFIG} does not describe a model that Pitstop trains as a whole")
    entries = _weights(directory, names)
    depth = config.get("num_hidden_layers")
    if type(depth) is int and depth > len(entries):  # building it would take for ever
        raise CheckpointError(f"{directory / file_sets.MODEL_CONFIG}: {depth} layers, and the weights are {len(entries)} tensors")
    return entries


def _object(path: Path) -> dict[str, Any]:
    try:
        # Not strict: transformers itself writes Infinity into some configs.
        content = json.loads(read_regular_file(path, limit=MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object is expected")
    return content


def _weights(directory: Path, names: Collection[str]) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    weight_map: dict[str, str] = {}
    for name in file_sets.Form(full_model=True).weights(names):
        entries = read_header(directory / name)
        if twice := sorted(tensors.keys() & entries.keys()):
            raise CheckpointError(f"{directory / name}: {twice[0][:200]} is in {weight_map[twice[0]]} too")
        tensors |= entries
        weight_map |= dict.fromkeys(entries, name)
    if file_sets.WEIGHTS_INDEX in names:
        index = _object(directory / file_sets.WEIGHTS_INDEX)
        if index.keys() != {"metadata", "weight_map"} or index["weight_map"] != weight_map:
            raise CheckpointError(
                f"{directory / file_sets.WEIGHTS_INDEX} does not say where the weights are: {reprlib.repr(index.get('weight_map'))}"
            )
    return tensors
