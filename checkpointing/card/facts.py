"""What a model card is made of, as plain values, and what they say of the Hub: which names in them are ids there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pitstop.checkpointing.card.markdown import clean
from pitstop.checkpointing.disk.dotted import at
from pitstop.checkpointing.runs.inventory import RemoteCheckpoint
from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.configs.datasets import without_weight
from pitstop.configs.files import read_preset

_HUB_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(f"{_HUB_NAME}/{_HUB_NAME}")
_FILES = (".jsonl", ".json", ".csv", ".parquet", ".git")
_COMMIT = re.compile(r"[0-9a-f]{40}")
METHODS = ("qlora", "lora", "full")


@dataclass(frozen=True)
class CardFacts:
    """What the card is made of. ``root`` and ``best`` are directories of ``checkpoints`` (``checkpoint-200``)."""

    repo: str
    name: str
    checkpoints: Mapping[str, RemoteCheckpoint] = field(default_factory=dict)
    """By directory in the repository, as the inventory has them."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Portable: nested, as ``settings_to_dict`` gives them."""
    metadata: Metadata = field(default_factory=Metadata)
    """Portable, as ``run/metadata.json`` has it."""
    root: str | None = None
    best: str | None = None
    finished: bool = False
    base_pushed: bool = False
    has_curve: bool = False
    local: Collection[str] = ()
    """Names in the settings that read like ids of the Hub but are paths where the run was trained (``data/train``)."""

    @property
    def newest(self) -> str | None:
        """The directory of the checkpoint with the most steps."""
        return max(self.checkpoints, key=lambda directory: self.checkpoints[directory].step, default=None)

    @property
    def method(self) -> str:
        """``qlora``, ``lora`` or ``full``."""
        method = at(self.settings, "training.method")
        return method if method in METHODS else "lora"

    @property
    def whole(self) -> bool:
        """Whether a whole model was trained, not an adapter."""
        return self.method == "full"

    @property
    def makes_images(self) -> bool:
        """Whether it makes images, not text."""
        return makes_images(self.settings)

    @property
    def pipeline_tag(self) -> str:
        """What the Hub files it under."""
        return "unconditional-image-generation" if self.makes_images else "text-generation"

    @property
    def from_scratch(self) -> bool:
        """Whether it began with random weights; ``base`` is then the configuration that it was made after."""
        return at(self.settings, "model.from_scratch") is True

    @property
    def averaged(self) -> bool:
        """Whether a moving average of the weights was kept and evaluated."""
        return at(self.settings, "training.ema_decay") is not None

    @property
    def base(self) -> str:
        """What the base is called."""
        return clean(text_at(self.settings, "model.id") or self.metadata.base_model.id or "")

    @property
    def base_revision(self) -> str | None:
        """The commit of the base on the Hub, where that is known; else the branch or tag that was asked for."""
        recorded = self.metadata.base_model.revision
        return recorded if recorded and _COMMIT.fullmatch(recorded) else text_at(self.settings, "model.revision")

    @property
    def base_on_hub(self) -> str | None:
        """The Hub id of the base; None where it was a directory, whose path may read like one (``models/llama``)."""
        from_hub = self.base_revision is not None or self.base == read_preset("demo")["model.id"].value
        return self.base if from_hub and self._is_on_hub(self.base) else None

    @property
    def datasets(self) -> list[str]:
        """The training data by name."""
        names = at(self.settings, "data.train")
        return [clean(without_weight(name)) for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def datasets_on_hub(self) -> list[str]:
        """Those of ``datasets`` that came from the Hub."""
        return [name for name in self.datasets if self._is_on_hub(name)]

    def _is_on_hub(self, name: str) -> bool:
        return is_hub_id(name) and name not in self.local


def makes_images(settings: Mapping[str, Any]) -> bool:
    """Whether the task of nested settings is one of images."""
    return bool(at(settings, "training.task") == "diffusion")


def is_hub_id(text: str) -> bool:
    """Whether ``text`` reads like ``owner/name``, the Hub would take it, and it is no name of a file."""
    return bool(_HUB_ID.fullmatch(text)) and "--" not in text and ".." not in text and not text.endswith(_FILES)


def text_at(nested: Mapping[str, Any], path: str) -> str | None:
    """The text at a dotted path; None where there is none."""
    value = at(nested, path)
    return value if isinstance(value, str) and value else None
