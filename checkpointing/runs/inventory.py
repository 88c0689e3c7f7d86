"""What a repository of ours holds, in ``run/RUN.json``: the run's files and every checkpoint, each with its hash.

The tree of a repository::

    README.md  loss_curve.png                       the model card
    adapter_model.safetensors  adapter_config.json  the newest adapter; at the end of training the best. Of a base
                                                    training the whole model: model.safetensors config.json tokenizer.json …
    checkpoint-100/  checkpoint-200/ …              a committed checkpoint each, byte for byte, with its MANIFEST.json
    run/RUN.json                                    this inventory; it changes with every commit that we make
    run/config.json  run/metadata.json  run/metrics.jsonl
    base/                                           the frozen base, with --push-base
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.disk.manifest import ManifestError, finite_metrics, is_sha256, parse_file_record, sealed, unsealed
from pitstop.checkpointing.disk.storage import FileRecord
from pitstop.configs.errors import CheckpointError

FORMAT_VERSION = 1
MAX_BYTES = 16 * 1024 * 1024
RUN_DIRECTORY = "run"
INVENTORY = f"{RUN_DIRECTORY}/RUN.json"
RUN_FILES = (layout.CONFIG, layout.METADATA, layout.METRICS)
BASE_DIRECTORY = "base"
CARD, CURVE = "README.md", "loss_curve.png"
ROOT_ADAPTER = (layout.ADAPTER_WEIGHTS, layout.ADAPTER_CONFIG)

METADATA_KEYS: Mapping[str, Any] = {
    "name": str,
    **dict.fromkeys(("experiment_name", "task", "method", "model", "dataset"), (str, type(None))),
    "created_at": str,
    **dict.fromkeys(("progress", "base_model", "data", "environment", "training_config", "lora_config"), dict),
    "resumes": list,
}
"""What of a run's metadata.json is pushed, and of which types each value is."""

_KEYS = {"format_version", "pitstop_version", "uid", "name", "checkpoints", "files", "base", "root", "finished"}
_ENTRY_KEYS = {"name", "step", "epoch", "saved_at", "metrics", "size", "manifest_sha256"}
_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class RemoteCheckpoint:
    """One checkpoint in the repository. ``name`` is that in the run (``epoch_003``); ``manifest_sha256`` of its MANIFEST.json."""

    name: str
    step: int
    epoch: float
    saved_at: str
    metrics: Mapping[str, float | None]
    size: int
    manifest_sha256: str

    @classmethod
    def of(cls, info: CheckpointInfo, manifest_sha256: str) -> RemoteCheckpoint:
        """The entry of a committed checkpoint."""
        return cls(
            info.name, info.step, float(info.epoch), info.saved_at.isoformat(), dict(info.metrics), info.size, manifest_sha256
        )

    @property
    def directory(self) -> str:
        """Where it lies in the repository: ``checkpoint-100``, whatever its name in the run."""
        return layout.step_name(self.step)

    @property
    def order(self) -> tuple[int, datetime, str]:
        """Sort key: by step, and at one step by time."""
        return (self.step, datetime.fromisoformat(self.saved_at), self.name)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**self.__dict__, "metrics": finite_metrics(self.metrics)}

    @classmethod
    def from_dict(cls, value: Any) -> RemoteCheckpoint:
        """Strictly; ``ValueError`` for anything that ``to_dict`` would not have given."""
        if not isinstance(value, dict) or value.keys() != _ENTRY_KEYS:
            raise ValueError("an entry of a checkpoint has other keys")
        name, step, epoch, size = value["name"], value["step"], value["epoch"], value["size"]
        if not isinstance(name, str) or not layout.is_checkpoint_name(name) or layout.step_of_name(name) not in (None, step):
            raise ValueError(f"{name!r:.80} is not the name of a checkpoint of step {step!r:.20}")
        if type(step) is not int or not 0 <= step < 10**15 or type(size) is not int or size < 0:
            raise ValueError(f"step or size of {name}")
        if not _is_finite(epoch) or epoch < 0:
            raise ValueError(f"epoch of {name}")
        moment = datetime.fromisoformat(value["saved_at"])
        if moment.tzinfo is None or moment.isoformat() != value["saved_at"]:
            raise ValueError(f"saved_at of {name}")
        if not is_sha256(value["manifest_sha256"]):
            raise ValueError(f"manifest_sha256 of {name}")
        metrics = value["metrics"]
        if not isinstance(metrics, dict) or not all(number is None or _is_finite(number) for number in metrics.values()):
            raise ValueError(f"metrics of {name}")
        return cls(name, step, epoch, value["saved_at"], metrics, size, value["manifest_sha256"])


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


@dataclass(frozen=True)
class Inventory:
    """``checkpoints`` by directory in the repository; ``files`` of ``run/`` by name; ``root``: whose adapter lies at the root."""

    uid: str
    """Sixteen random bytes in hexadecimal: tells one run from another of the same name."""
    name: str
    checkpoints: Mapping[str, RemoteCheckpoint] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    base: str | None = None
    """Digest of the base in ``base/``, if it was pushed."""
    root: str | None = None
    finished: bool = False
    """Whether the training had ended when this was written."""

    def to_bytes(self, pitstop_version: str) -> bytes:
        """The one spelling of this inventory."""
        parts = {
            "checkpoints": {directory: entry.to_dict() for directory, entry in self.checkpoints.items()},
            "files": {name: {"size": record.size, "sha256": record.sha256} for name, record in self.files.items()},
        }
        return sealed({**self.__dict__, **parts, "format_version": FORMAT_VERSION, "pitstop_version": pitstop_version})

    @classmethod
    def from_bytes(cls, raw: bytes, place: str) -> Inventory:
        """Read ``run/RUN.json`` strictly. ``ManifestError`` for damage, ``NewerFormatError`` for a newer format."""
        content = unsealed(raw, place, newest=FORMAT_VERSION)
        try:
            if content.keys() != _KEYS:
                raise ValueError("it holds something that its format does not have, or lacks something")
            checkpoints = {directory: RemoteCheckpoint.from_dict(value) for directory, value in content["checkpoints"].items()}
            for directory, entry in checkpoints.items():
                if directory != entry.directory:
                    raise ValueError(f"{directory!r:.80} holds the checkpoint of step {entry.step}")
            files = {name: parse_file_record(record) for name, record in content["files"].items()}
            if unknown := sorted(files.keys() - set(RUN_FILES)):
                raise ValueError(f"{unknown[0]!r:.80} is not a file of a run")
            uid, name, base, root = (content[key] for key in ("uid", "name", "base", "root"))
            if not isinstance(uid, str) or not _UID.fullmatch(uid) or not isinstance(name, str) or not 0 < len(name) <= 200:
                raise ValueError("uid or name")
            if not isinstance(content["pitstop_version"], str):
                raise ValueError("pitstop_version")
            if not (base is None or isinstance(base, str)) or root not in (None, *checkpoints):
                raise ValueError("base or root")
            if type(content["finished"]) is not bool:
                raise ValueError("finished")
        except (KeyError, TypeError, ValueError, AttributeError, CheckpointError) as error:
            raise ManifestError(f"{place}: {error}") from None
        return cls(uid, name, checkpoints, files, base, root, content["finished"])
