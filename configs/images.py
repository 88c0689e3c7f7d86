"""What the task diffusion has of its own among settings: defaults, and what goes with images alone or not at all."""

from __future__ import annotations

from typing import Any

from pitstop.configs.errors import SettingsError
from pitstop.configs.sources import DEFAULT, Source

TASK = "diffusion"

_METHOD, _FROM_RUN, _MODEL = "training.method", "model.from_run", "model.id"
_FROM_SCRATCH, _CONFIG = "model.from_scratch", "model.config"
_RANK, _ALPHA, _STAGE_RANKS = "lora.rank", "lora.alpha", "lora.stage_ranks"
_OF_IMAGES = ("data.classes", "data.label", _STAGE_RANKS)
_OF_TEXT = ("model.tokenizer", "model.gradient_checkpointing", "model.use_flash_attention", "evaluation.sample_prompts")
_DEFAULTS = {
    "training.batch_size": 64,
    "training.gradient_accumulation_steps": 1,
    "training.learning_rate": 2e-4,
    "training.weight_decay": 0.0,
}
_SIZE = "diffit-cifar-l2"
_SOURCE = Source("default", f"default of task {TASK}")


def resolve(values: dict[str, Any], sources: dict[str, Source]) -> None:
    """Put the task's defaults where nothing is given. ``SettingsError`` for what does not go with the task."""
    is_task = values["training.task"] == TASK
    if [str(rank).lower() for rank in values[_STAGE_RANKS]] == ["none"]:  # how a preset's are switched off
        values[_STAGE_RANKS] = []
    for path in _OF_TEXT if is_task else _OF_IMAGES:
        if values[path]:
            raise SettingsError(
                f"{path} ({sources[path].where}) is for {'text' if is_task else 'images'}, and the task is {values['training.task']}.",
                hint="Leave it out." if is_task else "Add --task diffusion, or leave it out.",
            )
    if not is_task:
        return
    _resolve_method(values, sources)
    for path, value in _DEFAULTS.items():
        _default(values, sources, path, value)
    _resolve_ranks(values, sources)


def _resolve_method(values: dict[str, Any], sources: dict[str, Source]) -> None:
    """An adapter where there is a base to put it on, otherwise a base from scratch."""
    based = bool(values[_FROM_RUN] or values[_MODEL]) and not values[_FROM_SCRATCH]
    if values[_METHOD] is None and not values["quantization.load_in_4bit"]:
        _default(values, sources, _METHOD, "lora" if based else "full")
    if values[_METHOD] == "qlora" or values["quantization.load_in_4bit"]:
        named = _METHOD if values[_METHOD] == "qlora" else "quantization.load_in_4bit"
        raise SettingsError(
            f"{named} ({sources[named].where}): the network of the task diffusion has no 4-bit form.", hint="Give --method lora."
        )
    if values[_METHOD] == "full" and not based:
        _default(values, sources, _FROM_SCRATCH, True)
    if values[_FROM_SCRATCH]:
        _default(values, sources, _CONFIG, _SIZE)


def _resolve_ranks(values: dict[str, Any], sources: dict[str, Source]) -> None:
    """With a rank for each resolution, the rank that names are made of is the first, unless it is given."""
    ranks, source = [str(rank) for rank in values[_STAGE_RANKS]], sources[_STAGE_RANKS]
    if not all(rank.isascii() and rank.isdigit() and 1 <= int(rank) <= 4096 for rank in ranks):
        raise SettingsError(
            f"{source.where}: '{','.join(ranks)}' are not whole numbers from 1 to 4096.",
            hint="Give a rank for each resolution, the finest first, such as 12,10,8.",
        )
    if ranks and sources[_RANK] is DEFAULT:
        if sources[_ALPHA] is DEFAULT:
            values[_ALPHA], sources[_ALPHA] = int(ranks[0]) * values[_ALPHA] // values[_RANK], source
        values[_RANK], sources[_RANK] = int(ranks[0]), source


def _default(values: dict[str, Any], sources: dict[str, Source], path: str, value: Any) -> None:
    if sources[path] is DEFAULT:
        values[path], sources[path] = value, _SOURCE
