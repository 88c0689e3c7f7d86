"""Whether a base model's directory would have a library run code, read a pickle, or look elsewhere for its weights.

transformers is told not to trust remote code, and never does. It follows other references, though: ``_attn_implementation`` may
name a kernel on the Hub that is downloaded and run, an index of weights may name a pickle, and an adapter that lies beside
a base is loaded with it. So the directory is looked through before the library sees it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import read_regular_file
from pitstop.checkpointing.store.model_files import CODE_KEYS, MAX_BYTES, names_a_kernel, pairs
from pitstop.configs.errors import ModelError

_STORED_ENDINGS = {".safetensors", ".json", ".jinja", ".model", ".txt"}
_SETTINGS_FILES = ("config.json", "generation_config.json", "tokenizer_config.json")


def check_source(directory: Path) -> None:
    """A base model as its author left it. Code that comes with it is passed over where transformers knows the architecture.

    Raises ``ModelError`` for a base that needs its own code, and for references out of the directory.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    _check_references(directory)
    config = json_object(directory / "config.json")
    if "auto_map" in config and config.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise needs_code(directory, f"its architecture, {str(config.get('model_type'))[:80]}, comes as Python code")


def check_stored(directory: Path) -> None:
    """A copy that Pitstop saved: it holds no reference to code at all. ``ModelError`` names the file that has one."""
    advice = f"If you did not make it, do not trust it. Remove {directory}: the base is then saved again from its source."
    for parent, _, names in os.walk(directory):
        for name in sorted(names):
            if Path(name).suffix not in _STORED_ENDINGS:
                raise ModelError(f"{Path(parent) / name} is not a file of a saved base model.", hint=advice)
    _check_references(directory)
    for path in sorted(directory.glob("*.json")):
        for key, _ in pairs(_content(path)) if path.name != "tokenizer.json" else ():
            if key in CODE_KEYS:
                raise ModelError(f"{path} refers to code ({key}), which no saved base model does.", hint=advice)
    quantisation = json_object(directory / "config.json").get("quantization_config")
    if quantisation is not None and (not isinstance(quantisation, dict) or quantisation.get("quant_method") != "bitsandbytes"):
        raise ModelError(f"{directory / 'config.json'} names a quantisation that Pitstop does not write.", hint=advice)


def forget_code(configuration: Any) -> None:
    """Take the references to its author's code off a model's config or a tokenizer: a saved copy goes without."""
    if configuration is None:
        return
    vars(configuration).pop("auto_map", None)
    if getattr(configuration, "_auto_map", None) is not None:  # a tokenizer's
        configuration._auto_map = None
    arguments = getattr(configuration, "init_kwargs", None)
    if isinstance(arguments, dict):
        arguments.pop("auto_map", None)


def needs_code(path: Path, reason: str) -> ModelError:
    """The error for a base that only runs with code of its own."""
    return ModelError(
        f"{path} needs code of its own ({reason}), which Pitstop never runs.",
        hint="Take a model whose architecture transformers has, or a revision that was converted to one.",
    )


def refuse_adapter(directory: Path) -> None:
    """Raises ``ModelError`` for an adapter, alone or beside a base: transformers would load it together with its base."""
    if (directory / layout.ADAPTER_CONFIG).exists():
        raise ModelError(
            f"{directory} holds an adapter ({layout.ADAPTER_CONFIG}), not a base model alone.",
            hint="Give the base that the adapter was trained on, or merge the two and give the merged model.",
        )


def _check_references(directory: Path) -> None:
    refuse_adapter(directory)
    for name in _SETTINGS_FILES:
        for key, value in pairs(json_object(directory / name)):
            if key.endswith("_implementation") and names_a_kernel(value):
                raise needs_code(directory / name, f"{key} names a kernel on the Hub")
            if key == "transformers_weights" and not _plain_weights(value):
                raise ModelError(f"{directory / name}: {key} does not name safetensors of this directory.")
    for path in sorted(directory.glob("*.safetensors.index.json")):
        shards = json_object(path).get("weight_map")
        if not isinstance(shards, dict) or not all(_plain_weights(name) for name in shards.values()):
            raise ModelError(
                f"{path} does not name safetensors of this directory alone.", hint="Pitstop reads no pickled weights."
            )


def _plain_weights(name: Any) -> bool:
    return isinstance(name, str) and name.endswith((".safetensors", ".safetensors.index.json")) and not set(name) & set("/\\\0")


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's directory, empty where there is no file. ``ModelError`` for anything else."""
    content = _content(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not what transformers writes: a JSON object is expected.")
    return content


def _content(path: Path) -> Any:
    try:
        # Resolved: the Hub's cache is made of links. Not strict: transformers itself writes Infinity into some configs.
        return json.loads(read_regular_file(path.resolve(), limit=MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
