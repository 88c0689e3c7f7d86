"""Repositories as a push leaves them, in memory, and a client that reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.manifest import sealed, unsealed
from pitstop.checkpointing.disk.storage import FileRecord, Storage
from pitstop.checkpointing.hub.client import NotThere, RemoteFile
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.inventory import INVENTORY, Inventory, RemoteCheckpoint
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import CheckpointFacts, CheckpointStore
from support.forging import CONFIG, sound_files
from support.stores import START, ForgetfulStorage

REPO = "owner/a-run"
UID = "0123456789abcdef" * 2
BASE_DIGEST = "b" * 64
METADATA_KEYS = ("name", "experiment_name", "task", "method", "model", "dataset", "created_at", "progress", "base_model", "data",
                 "environment", "training_config", "lora_config", "resumes")  # fmt: skip

Files = dict[str, bytes]


def record(content: bytes) -> FileRecord:
    """Size and hash of a file."""
    return FileRecord(len(content), hashlib.sha256(content).hexdigest())


@dataclass
class FakeHub:
    """What a pull asks of the Hub, answered from a dictionary of files. ``before`` is called ahead of each answer and may raise.

    What it downloads is written through ``storage``, and never synced.
    """

    contents: Files
    repo: str = REPO
    commit: str = "0123456789" * 4
    claimed: dict[str, int] = field(default_factory=dict)
    before: Callable[[str], None] = lambda what: None
    storage: Storage = field(default_factory=ForgetfulStorage)
    downloads: list[str] = field(default_factory=list)
    sent: Files = field(default_factory=dict)
    """What is sent in place of the contents that are listed."""

    def head(self, repo: str, revision: str = "main") -> str:
        self.before("head")
        if repo != self.repo:
            raise NotThere(f"{repo} is not on the Hub, or the token may not see it", hint="check the name")
        return self.commit

    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]:
        self.before("files")
        assert (repo, commit) == (self.repo, self.commit), "everything after the first answer goes by the commit"
        return {name: self._listed(name, content) for name, content in self.contents.items()}

    def _listed(self, name: str, content: bytes) -> RemoteFile:
        large = name.endswith(".safetensors")
        digest = hashlib.sha256(content).hexdigest() if large else None
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return RemoteFile(self.claimed.get(name, len(content)), oid, digest)

    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path:
        self.before(path)
        assert (repo, commit) == (self.repo, self.commit)
        target = directory / path
        assert not target.exists(), f"{path} is here already"
        for place in [directory / parent for parent in reversed(Path(path).parents)]:
            if not place.exists():
                self.storage.make_directory(place)
        descriptor = self.storage.create(target)
        self.storage.write(descriptor, memoryview(self.sent.get(path, self.contents[path])))
        self.storage.close(descriptor)
        self.downloads.append(path)
        return target


def repository(
    scratch: Path,
    losses: Mapping[int, float] | None = None,
    *,
    base: bool = False,
    names: Mapping[int, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Files:
    """A repository of a run with a checkpoint of each step of ``losses``, made in the empty directory ``scratch``."""
    losses = {3: 0.5, 6: 0.7} if losses is None else losses
    store = CheckpointStore(scratch / "lora_weights", ForgetfulStorage())
    for step, loss in losses.items():
        store.write(
            (names or {}).get(step, layout.step_name(step)),
            _files_at(step),
            CheckpointFacts(
                step=step,
                epoch=0.5,
                metrics={"val_loss": loss},
                world_size=1,
                fingerprints={"base": BASE_DIGEST, "data": "d"},
                versions={},
                saved_at=START + timedelta(minutes=step),
            ),
        )
    content: dict[str, Any] = dict.fromkeys(METADATA_KEYS)
    content |= {key: {} for key in ("data", "environment", "training_config", "lora_config")}
    content |= {"name": "a-run", "created_at": START.isoformat(), "model": "owner/name", "resumes": [{"step": 1}, {"step": 2}]}
    content |= {"progress": {"step": 9, "total_steps": 12, "epoch": 0.75, "total_epochs": 1}}
    content |= {"base_model": {"id": "owner/name", "digest": BASE_DIGEST, "saved": True}, **(metadata or {})}
    rows = "".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 10))
    run = {
        layout.CONFIG: json.dumps(CONFIG).encode(),
        layout.METADATA: json.dumps(content).encode(),
        layout.METRICS: rows.encode(),
    }
    files = lay_out(store, run, base=BASE_DIGEST if base else None)
    return {**files, **(base_files(scratch) if base else {})}


def _files_at(step: int) -> Files:
    files = sound_files()
    state = json.loads(files[layout.TRAINER_STATE])
    state["global_step"] = state["progress"]["step"] = step
    return {**files, layout.TRAINER_STATE: json.dumps(state).encode()}


def base_files(scratch: Path) -> Files:
    """A base model of two files as it lies in ``base/``."""

    def write(directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"weights of the base")
        (directory / "tokenizer.json").write_bytes(b"{}")

    return tree(BaseModels(scratch, ForgetfulStorage()).save_once(BASE_DIGEST, write), "base")


def lay_out(store: CheckpointStore, run: Mapping[str, bytes], *, name: str = "a-run", base: str | None = None) -> Files:
    """What a push of the checkpoints in ``store`` leaves, with the files ``run`` of ``run/``."""
    files = {"README.md": b"# A run\n", ".gitattributes": b"*.safetensors filter=lfs\n", "loss_curve.png": b"\x89PNG"}
    entries = {}
    for info in store.list():
        directory = layout.step_name(info.step)
        files |= tree(info.path, directory)
        entries[directory] = RemoteCheckpoint.of(info, hashlib.sha256(files[f"{directory}/{layout.MANIFEST}"]).hexdigest())
        for adapter in (layout.ADAPTER_WEIGHTS, layout.ADAPTER_CONFIG):
            files[adapter] = files[f"{directory}/{adapter}"]
    files |= {f"run/{file}": content for file, content in run.items()}
    records = {file: record(content) for file, content in run.items()}
    inventory = Inventory(UID, name, entries, records, base=base, root=next(reversed(entries), None))
    return {**files, INVENTORY: inventory.to_bytes("0.1.0")}


def push(run: RunDirectory, *, base: bool = False) -> Files:
    """What a push of a real run leaves."""
    metadata = run.metadata().content
    config = {key: value for key, value in run.config().items() if key != "sources"}
    files = {
        layout.CONFIG: json.dumps(config).encode(),
        layout.METADATA: json.dumps({key: metadata[key] for key in METADATA_KEYS}).encode(),
        layout.METRICS: run.metrics_path.read_bytes(),
    }
    digest = metadata["base_model"]["digest"] if base else None
    laid_out = lay_out(run.store, files, name=run.name, base=digest)
    return {**laid_out, **(tree(run.path / layout.BASE_MODEL, "base") if base else {})}


def tree(directory: Path, name: str) -> Files:
    """All files below ``directory`` as they lie in the repository's directory ``name``."""
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {f"{name}/{path.relative_to(directory).as_posix()}": path.read_bytes() for path in found}


def forge(files: Files, path: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a sealed JSON file and seal it again, as somebody would who knows how."""
    content = unsealed(files[path], path)
    change(content)
    files[path] = sealed(content)


def fit_inventory(files: Files) -> None:
    """Make the hashes in the inventory those of what lies there now."""

    def fit(content: dict[str, Any]) -> None:
        for directory, entry in content["checkpoints"].items():
            entry["manifest_sha256"] = record(files[f"{directory}/{layout.MANIFEST}"]).sha256
        for name in content["files"]:
            found = record(files[f"run/{name}"])
            content["files"][name] = {"size": found.size, "sha256": found.sha256}

    forge(files, INVENTORY, fit)


def fit_manifest(files: Files, directory: str) -> None:
    """Make a checkpoint's manifest list what lies there now, and the inventory fit that."""
    path = f"{directory}/{layout.MANIFEST}"

    def fit(content: dict[str, Any]) -> None:
        there = {name.removeprefix(f"{directory}/"): record(files[name]) for name in files if name.startswith(f"{directory}/")}
        del there[layout.MANIFEST]
        content["files"] = {name: {"size": each.size, "sha256": each.sha256} for name, each in there.items()}

    forge(files, path, fit)
    size = sum(each["size"] for each in unsealed(files[path], path)["files"].values())
    forge(files, INVENTORY, lambda content: content["checkpoints"][directory].update(size=size))
    fit_inventory(files)
