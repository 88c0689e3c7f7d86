"""Which settings may change within a run, and which make another model of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import leaves

Changes = dict[str, tuple[Any, Any]]
"""Setting → (in the checkpoint, from here on)."""

# Changing one of these makes another model or another run of it.
_FIXED = ("model.revision", "model.from_scratch", "lora.", "quantization.", "training.task", "training.method",
          "training.optimizer", "training.ema_decay", "training.checkpoint.shard_size_gb",
          "training.checkpoint.base_dir", "training.checkpoint.run_number", "naming.", "data.label", "data.rendering", "data.chat_template",
          "diffusion.conditional_classes")  # fmt: skip
_MAY_CHANGE = ("lora.dropout",)
_BASE_DIR = "training.checkpoint.base_dir"
# A checkpoint of a whole model needs no other model, so that naming one would be a misunderstanding.
_FIXED_IN_FULL = ("model.id", "model.from_run", "model.config", "model.tokenizer")


def is_fixed(path: str) -> bool:
    """Whether a setting stays what it was in config.json for the whole run; where the run lies may change."""
    return path.startswith(_FIXED) and path not in (*_MAY_CHANGE, _BASE_DIR)


def changes_between(saved: Mapping[str, Any], current: Mapping[str, Any]) -> Changes:
    """The settings in which two documents differ; one that ``saved`` is too old to know had what held before."""

    def get(document: Any, path: str, default: Any) -> Any:
        for part in path.split("."):
            document = document.get(part, default) if isinstance(document, dict) else default
        return document

    compared = [leaf for leaf in leaves() if not leaf.secret and leaf.path != _BASE_DIR]
    earlier = {leaf.path: leaf.default if leaf.before is None else leaf.before for leaf in compared}
    pairs = {path: (get(saved, path, value), get(current, path, value)) for path, value in earlier.items()}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def refuse_fixed(changes: Collection[str], flags: Collection[str], method: str | None) -> None:
    """Raises ``SettingsError`` for a change that would make another model; it names what the user gave, not what follows from it."""
    options = {leaf.path: leaf.flag for leaf in leaves()}
    for path in sorted(changes, key=lambda path: path not in flags):
        if is_fixed(path) or (method == "full" and path in _FIXED_IN_FULL):
            raise SettingsError(
                f"{options[path]} cannot change in a resumed run: it would be another model.",
                hint="Start a new run with 'pitstop train'.",
            )
