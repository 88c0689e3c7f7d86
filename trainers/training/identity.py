"""What a checkpoint says of the training that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pitstop.checkpointing.store.portable_paths import portable_settings
from pitstop.configs.load import settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.naming.names import settings_digest


@dataclass(frozen=True)
class Identity:
    """What a checkpoint's manifest says it belongs to, the settings in force without this machine's paths, and the machine."""

    fingerprints: dict[str, str]
    settings: dict[str, Any]
    environment: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, Any], **fingerprints: str) -> Identity:
        """``fingerprints`` are those of ``base`` and ``data``; that of the settings is worked out."""
        return cls(
            {**fingerprints, "settings": settings_digest(settings)},
            portable_settings(settings_to_dict(settings)),
            dict(environment),
        )
