from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from pitstop.checkpointing.store.model_files import check_model
from pitstop.configs.errors import CheckpointError

CONFIG: dict[str, Any] = {"model_type": "llama", "num_hidden_layers": 2}


def model_in(
    directory: Path, *, config: Any = CONFIG, tokenizer: Any = None, shards: int = 1, weight_map: Any = None
) -> list[str]:
    """The names of the files of a model with two tensors, written into ``directory``."""
    tensors = {"a": torch.zeros(2), "b": torch.ones(3)}
    (directory / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    if shards == 1:
        safetensors.torch.save_file(tensors, directory / "model.safetensors")
    else:
        places = {name: f"model-{number:05d}-of-00002.safetensors" for number, name in enumerate(tensors, 1)}
        for name, file in places.items():
            safetensors.torch.save_file({name: tensors[name]}, directory / file)
        index = {"metadata": {}, "weight_map": places if weight_map is None else weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return [path.name for path in directory.iterdir()]


@pytest.mark.parametrize("shards", [1, 2])
def test_the_tensors_of_a_whole_model_are_listed(tmp_path: Path, shards: int) -> None:
    entries = check_model(tmp_path, model_in(tmp_path, shards=shards, tokenizer={"chat_template": "{{ x }}"}))
    assert {name: entry.shape for name, entry in entries.items()} == {"a": (2,), "b": (3,)}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"config": {**CONFIG, "auto_map": {"AutoModel": "evil--model"}}}, "refers to code"),
        ({"config": {**CONFIG, "text_config": {"_attn_implementation": "someone/kernel"}}}, "refers to code"),
        ({"tokenizer": {"auto_map": {"AutoTokenizer": ["evil.py", None]}}}, "refers to code"),
        ({"config": {"model_type": 3}}, "does not describe a model"),
        ({"config": {**CONFIG, "quantization_config": {}}}, "does not describe a model"),
        ({"config": []}, "a JSON object is expected"),
        ({"config": {**CONFIG, "num_hidden_layers": 10**9}}, "1000000000 layers, and the weights are 2 tensors"),
        ({"shards": 2, "weight_map": {"a": "model.safetensors"}}, "does not say where the weights are"),
    ],
)
def test_what_is_no_model_or_leads_to_code_is_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        check_model(tmp_path, model_in(tmp_path, **options))


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    names = model_in(tmp_path, shards=2)
    safetensors.torch.save_file({"a": torch.zeros(2), "b": torch.ones(3)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"a is in model-00001-of-00002\.safetensors too"):
        check_model(tmp_path, names)
