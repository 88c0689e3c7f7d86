"""What a checkpoint holds besides its training state: an adapter or a whole model, and perhaps an average of the weights.

Pure names. Which form a run's checkpoints have follows from the settings of its start, so that a file that does not belong to
it is refused whatever a manifest lists.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.dotted import at

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
MODEL_CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
EMA = "ema.safetensors"

TOKENIZER_FILES = frozenset({
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
})  # fmt: skip
"""Every file that a tokenizer may have in a checkpoint."""

_DESCRIPTION = TOKENIZER_FILES | {GENERATION_CONFIG, MODEL_CONFIG}
_SHARD = re.compile(r"model-([0-9]{5})-of-([0-9]{5})\.safetensors")


def shard_name(number: int, count: int) -> str:
    """Name of the ``number``-th (from 1) of ``count`` weights files, as transformers writes it."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def is_model_file(name: str) -> bool:
    """Whether a whole model may have a file of this name, on its own or in a checkpoint."""
    return name in _DESCRIPTION or name in (WEIGHTS, WEIGHTS_INDEX) or _SHARD.fullmatch(name) is not None


def checkpoint_files(world_size: int) -> set[str]:
    """Every file of a checkpoint that ``world_size`` processes saved, the manifest aside."""
    shared = {layout.ADAPTER_WEIGHTS, layout.ADAPTER_CONFIG, layout.OPTIMIZER, layout.OPTIMIZER_META, layout.TRAINER_STATE}
    return shared | {layout.rng_file(rank) for rank in range(world_size)}


@dataclass(frozen=True)
class Form:
    """``full_model``: a whole model, else an adapter; ``ema``: a moving average of what is trained lies beside it."""

    full_model: bool = False
    ema: bool = False

    def problems(self, names: Collection[str], world_size: int) -> tuple[list[str], list[str]]:
        """Which files are missing from ``names`` (the manifest aside) and which have no place there, both sorted."""
        required = checkpoint_files(world_size) | ({EMA} if self.ema else set())
        if not self.full_model:
            return sorted(required - set(names)), sorted(set(names) - required)
        required = required - {layout.ADAPTER_WEIGHTS, layout.ADAPTER_CONFIG} | {MODEL_CONFIG, *_weights_wanted(names)}
        return sorted(required - set(names)), sorted(set(names) - required - _DESCRIPTION)

    def weights(self, names: Collection[str]) -> list[str]:
        """Those of ``names`` that hold the weights as they are trained."""
        if not self.full_model:
            return [layout.ADAPTER_WEIGHTS]
        return sorted(name for name in names if name == WEIGHTS or _SHARD.fullmatch(name))

    def served(self, names: Collection[str]) -> dict[str, str]:
        """The files that other tools load, by the name they look for → that in the checkpoint; of an average, its weights."""
        if not self.full_model:
            weights = EMA if self.ema else layout.ADAPTER_WEIGHTS
            return {layout.ADAPTER_WEIGHTS: weights, layout.ADAPTER_CONFIG: layout.ADAPTER_CONFIG}
        served = {name: name for name in sorted(names) if is_model_file(name)}
        if self.ema:
            served = {name: name for name in served if name in _DESCRIPTION} | {WEIGHTS: EMA}
        return served


def _weights_wanted(names: Collection[str]) -> set[str]:
    """One file, or an index with as many shards as their names say."""
    counts = {int(shard[2]) for name in names if (shard := _SHARD.fullmatch(name))}
    if not counts:
        return {WEIGHTS}
    count = min(max(counts), len(names) + 1)  # one that is missing will do to refuse a count that nobody could write out
    return {WEIGHTS_INDEX, *(shard_name(number, max(counts)) for number in range(1, count + 1))}


def form_of(settings: Mapping[str, Any]) -> Form:
    """The form of the checkpoints of a run with these nested settings."""
    return Form(full_model=at(settings, "training.method") == "full", ema=at(settings, "training.ema_decay") is not None)


def group_of(settings: Mapping[str, Any]) -> str:
    """The group of runs that a run with these nested settings belongs to: ``base_training``, or empty."""
    return layout.BASE_TRAINING if form_of(settings).full_model else ""
