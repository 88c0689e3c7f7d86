"""Twelve ways in which a model's directory can be wrong, each a change of one that is right; and some of the same kinds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ROWS = 262
"""Of the embeddings where the tokenizer has more tokens: those of single bytes, and a few."""


def change_tensors(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Write the weights anew as ``change`` makes them."""
    import safetensors.torch

    tensors = change(safetensors.torch.load_file(directory / WEIGHTS))
    copies = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(copies, directory / WEIGHTS, metadata={"format": "pt"})


def change_config(directory: Path, **values: Any) -> None:
    """Set keys of config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def renamed(prefix: str) -> Callable[[Path], None]:
    """Puts ``prefix`` in front of every name."""
    return lambda directory: change_tensors(directory, lambda t: {f"{prefix}{name}": tensor for name, tensor in t.items()})


def without(*names: str) -> Callable[[Path], None]:
    """Leaves tensors out."""
    return lambda directory: change_tensors(directory, lambda t: {name: t[name] for name in t if name not in names})


def reshaped(name: str) -> Callable[[Path], None]:
    """Gives a matrix twice the rows."""
    return lambda directory: change_tensors(directory, lambda t: {**t, name: t[name].repeat(2, 1)})


def of_another_architecture(directory: Path) -> None:
    """Qwen2's attention has biases that Llama's has not."""
    change_config(directory, model_type="qwen2", architectures=["Qwen2ForCausalLM"])


def sharded(directory: Path) -> list[Path]:
    """The weights in two files and an index."""
    import safetensors.torch

    tensors = safetensors.torch.load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    names, weight_map = sorted(tensors), {}
    shards = [directory / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for shard, part in zip(shards, (names[::2], names[1::2]), strict=True):
        safetensors.torch.save_file({name: tensors[name] for name in part}, shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard.name)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return shards


def with_half_a_shard(directory: Path) -> None:
    """As where copying was cut off."""
    shard = sharded(directory)[1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def with_too_few_rows(directory: Path) -> None:
    """Embeddings for fewer tokens than the tokenizer has."""
    ends = ("model.embed_tokens.weight", "lm_head.weight")
    change_tensors(directory, lambda t: {name: tensor[:ROWS] if name in ends else tensor for name, tensor in t.items()})
    change_config(directory, vocab_size=ROWS)


def with_few_positions(directory: Path, positions: int = 16) -> None:
    """A GPT-2 in place of the model, with the same tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    vocabulary = json.loads((directory / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 2}
    config = GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=16, n_layer=2, n_head=2, **ids)
    GPT2LMHeadModel(config).save_pretrained(directory)


def an_adapter(directory: Path) -> None:
    """What PEFT saves, in place of the model."""
    for name in ("config.json", "generation_config.json"):
        (directory / name).unlink()
    (directory / WEIGHTS).rename(directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base"}))


QUANTISED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}

WAYS: dict[str, Callable[[Path], Any]] = {
    "foreign prefix": renamed("_orig_mod."),
    "one tensor missing": without("model.layers.1.mlp.up_proj.weight"),
    "wrong shape": reshaped("model.layers.0.self_attn.q_proj.weight"),
    "untied without head": without("lm_head.weight"),
    "other architecture": of_another_architecture,
    "half-copied shard": with_half_a_shard,
    "index without shard": lambda directory: sharded(directory)[1].unlink(),
    "quantised unasked": lambda directory: change_config(directory, quantization_config=QUANTISED),
    "tokenizer too large": with_too_few_rows,
    "positions too few": with_few_positions,
    "adapter in place of a base": an_adapter,
    "empty file": lambda directory: (directory / WEIGHTS).write_bytes(b""),
}


def wrong_model(model: Path, directory: Path, way: str) -> Path:
    """A copy of ``model`` in ``directory`` that is wrong in this way."""
    shutil.copytree(model, directory)
    WAYS[way](directory)
    return directory
