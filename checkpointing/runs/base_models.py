"""The frozen base models: one verified copy for all runs that share it.

``.base_models/<digest>`` holds the copy. Each run has it under ``base_model``, as hard links that take no space; where the
filesystem has none, ``base_model.json`` says where the copy is.
"""

# Abspath keeps links as the user named them, which resolve() does not.
# ruff: noqa: PTH100, PTH208
from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout, locking, manifest, storage
from pitstop.checkpointing.disk.inspection import content_problems, is_real_directory, shape_problems, summary
from pitstop.checkpointing.disk.storage import FileRecord, LocalStorage, Storage
from pitstop.configs.errors import CheckpointError, is_disk_full

FORMAT_VERSION = 1
BASE_MANIFEST = layout.BASE_MANIFEST
LINKED = layout.BASE_MODEL
REFERENCE = "base_model.json"
STARTING = ".starting.lock"
"""Held together by processes that have placed a base and have no run yet that refers to it."""

_STORE = "the store of base models"

_MANIFEST_KEYS = {"format_version", "pitstop_version", "digest_of_base", "files"}
_DIGEST_CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyz-_")


class BaseModels:
    """The base models shared by the runs in ``base_dir``."""

    def __init__(self, base_dir: Path | str, storage: Storage | None = None) -> None:
        self.base_dir = Path(os.path.abspath(base_dir))
        self.directory = self.base_dir / layout.BASE_MODELS
        self._storage: Storage = storage or LocalStorage()

    def path(self, digest: str) -> Path:
        """Where the copy with this digest lies, or would."""
        if not 8 <= len(digest) <= 128 or not set(digest) <= _DIGEST_CHARACTERS or digest[0] in "-_":
            raise CheckpointError(f"'{digest}' cannot name a base model")
        return self.directory / digest

    def save_once(self, digest: str, write: Callable[[Path], None]) -> Path:
        """The copy with this digest, made by ``write(directory)`` into an empty directory unless it is there already.

        Processes that start together wait for the first. The copy appears whole or not at all; a damaged one is set aside
        and made anew. Until ``link_into``, or the end of this process, ``pitstop prune`` keeps its hands off the copies: no
        run refers to this one yet. ``ResourceError`` when the disk fails or is full; what ``write`` raises passes through.
        """
        final = self.path(digest)
        try:
            storage.make_directories(self._storage, self.directory)
            # However long another process takes to save a base, waiting is quicker than saving it twice.
            with locking.exclusive(self.directory / layout.LOCK, _STORE, patience_s=math.inf):
                for name in os.listdir(self.directory):
                    if name.startswith(storage.LEFTOVERS):
                        self._storage.remove_tree(self.directory / name)
                if self._problems(final, content_problems):
                    self._set_aside(final)
                    self._make(final, write)
                locking.share(self.directory / STARTING, _STORE)  # before the other lock goes
        except Exception as error:
            if isinstance(error, OSError):
                raise storage.failed_save(final, error) from error
            if is_disk_full(error):  # the libraries that write a base hide the system's error in their own
                raise storage.failed_save(final, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
            raise
        return final

    def _make(self, final: Path, write: Callable[[Path], None]) -> None:
        temporary = storage.temporary_name(final)
        try:
            self._storage.make_directory(temporary)
            write(temporary)
            storage.make_durable(self._storage, temporary)
            self._storage.write_file(temporary / BASE_MANIFEST, _manifest_bytes(final.name, temporary))
            self._storage.sync_directory(temporary)
            self._storage.rename(temporary, final)
            self._storage.sync_directory(self.directory)
        except BaseException:
            if os.path.lexists(temporary):
                self._storage.remove_tree(temporary)
            raise

    def _set_aside(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        damaged = self.directory / layout.DAMAGED
        storage.make_directories(self._storage, damaged)
        self._storage.rename(path, storage.free_name(damaged / path.name))
        self._storage.sync_directory(damaged)

    def verify(self, digest: str) -> Path:
        """Hash the copy again; ``CheckpointError`` names the files that are missing, extra or changed."""
        return self._verified(self.path(digest))

    def _verified(self, directory: Path) -> Path:
        problems = self._problems(directory, content_problems)
        if problems:
            raise CheckpointError(
                f"the base model {directory} is damaged: {summary(problems)}",
                hint="remove that directory; the next start saves the base again from its source",
            )
        return directory

    def _problems(self, directory: Path, check: Callable[[Path, Mapping[str, FileRecord], str], list[str]]) -> list[str]:
        if not is_real_directory(directory):
            return ["there is no such directory"]
        try:
            _, files = read_base_manifest(directory)
        except manifest.ManifestError as error:
            return [error.message]
        return check(directory, files, BASE_MANIFEST)

    def link_into(self, run_dir: Path, digest: str) -> Path:
        """Give the run its ``base_model``: a directory of hard links, or a reference where links fail. Idempotent.

        Returns the directory with the files. ``CheckpointError`` when there is no copy, ``ResourceError`` as the disk says.
        """
        source = self.path(digest)
        problems = self._problems(source, shape_problems)
        if problems:
            raise CheckpointError(f"the base model {source} is damaged: {summary(problems)}")
        location = self._linked_into(Path(run_dir), source)
        locking.release(self.directory / STARTING)
        return location

    def _linked_into(self, run_dir: Path, source: Path) -> Path:
        target = run_dir / LINKED
        if os.path.lexists(target) or (run_dir / REFERENCE).exists():
            return self.base_location(run_dir)
        try:
            return self._link(source, target)
        except OSError as error:
            if not storage.links_unsupported(error):
                raise storage.failed_save(target, error) from error
        content = {"digest": source.name, "path": os.path.relpath(source, run_dir).replace(os.sep, "/")}
        with storage.saving(run_dir / REFERENCE):
            storage.atomic_write(self._storage, run_dir / REFERENCE, (json.dumps(content, indent=2) + "\n").encode())
        return source

    def relink(self, run_dir: Path, digest: str) -> Path:
        """Give the run the shared copy in place of a ``base_model`` that is damaged; that is kept in ``.damaged``."""
        for name in (LINKED, REFERENCE):
            self._set_aside(Path(run_dir) / name)
        return self.link_into(run_dir, digest)

    def _link(self, source: Path, target: Path) -> Path:
        temporary = storage.temporary_name(target)
        try:
            for directory, _, names in os.walk(source):
                copy = temporary / Path(directory).relative_to(source)
                self._storage.make_directory(copy)
                for name in names:
                    self._storage.link(Path(directory) / name, copy / name)
                self._storage.sync_directory(copy)
            self._storage.rename(temporary, target)
        except BaseException:
            if os.path.lexists(temporary):
                self._storage.remove_tree(temporary)
            raise
        self._storage.sync_directory(target.parent)
        return target

    def base_location(self, run_dir: Path) -> Path:
        """Where the run's base lies, unverified. ``CheckpointError`` when the run has none."""
        linked = Path(run_dir) / LINKED
        if is_real_directory(linked):
            return linked
        return self.path(self._referred(Path(run_dir)))

    def _referred(self, run_dir: Path) -> str:
        path = run_dir / REFERENCE
        try:
            digest = json.loads(storage.read_regular_file(path, limit=10_000))["digest"]
        except FileNotFoundError as error:
            raise CheckpointError(f"{run_dir} has no saved base model", hint="the base is loaded from its source") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: damaged ({error})", hint="remove it; the base is then loaded from its source"
            ) from error
        return str(digest)

    def digests(self) -> list[str]:
        """The copies there are, whole and damaged ones, sorted."""
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        return [name for name in names if name[0] not in ".-_" and os.path.lexists(self.directory / name / BASE_MANIFEST)]

    def digest_of(self, run_dir: Path) -> str | None:
        """The digest of the base that the run has under ``base_model``; None where it has none, or none that can be read."""
        try:
            linked = Path(run_dir) / LINKED
            return read_base_manifest(linked)[0] if is_real_directory(linked) else self._referred(Path(run_dir))
        except CheckpointError:
            return None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who changes the copies, and no process is about to use one. ``RunError`` names one that is."""
        with locking.exclusive(self.directory / layout.LOCK, _STORE), locking.exclusive(self.directory / STARTING, _STORE):
            yield

    def in_use_by(self) -> Path | None:
        """The lock file that keeps ``alone`` from being had now; None when nothing does."""
        for name in (layout.LOCK, STARTING):
            if locking.is_taken(self.directory / name):
                return self.directory / name
        return None

    def base_path(self, run_dir: Path, digest: str | None = None) -> Path:
        """Where the run's base lies, every byte verified; with ``digest``, only the base of that digest will do.

        Should the run's links be damaged or of another base, the shared copy is taken if that is whole. ``CheckpointError``
        names what is wrong.
        """
        location = self.base_location(run_dir)
        try:
            return self._of_digest(self._verified(location), digest)
        except CheckpointError:
            shared = self._shared_twin(location) if digest is None else self.path(digest)
            if shared is None or shared == location or not is_real_directory(shared):
                raise
            return self._of_digest(self._verified(shared), digest)

    def _of_digest(self, directory: Path, digest: str | None) -> Path:
        actual, _ = read_base_manifest(directory)
        if digest is not None and actual != digest:
            raise CheckpointError(f"{directory} is not the base model that the checkpoint was trained on (its digest differs)")
        return directory

    def _shared_twin(self, linked: Path) -> Path | None:
        try:
            digest, _ = read_base_manifest(linked)
            twin = self.path(digest)
        except CheckpointError:
            return None
        return twin if twin != linked and twin.is_dir() else None


def read_base_manifest(directory: Path) -> tuple[str, dict[str, FileRecord]]:
    """Digest and files of the base model in ``directory``. ``ManifestError`` when its manifest is missing or damaged."""
    path = directory / BASE_MANIFEST
    try:
        content = manifest.unsealed(storage.read_regular_file(path, limit=manifest.MAX_BYTES), str(path), newest=FORMAT_VERSION)
        if content.keys() != _MANIFEST_KEYS:
            raise ValueError("it holds something that its format does not have, or lacks something")
        files: Any = content["files"]
        records = {name: manifest.parse_file_record(record) for name, record in files.items()}
        manifest.check_file_names(records)
        return str(content["digest_of_base"]), records
    except OSError as error:
        raise manifest.ManifestError(f"{path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise manifest.ManifestError(f"{path}: {type(error).__name__} in the manifest: {error}") from error
    except (manifest.ManifestError, manifest.NewerFormatError):
        raise
    except CheckpointError as error:
        raise manifest.ManifestError(f"{path}: {error.message}") from None


def _manifest_bytes(digest: str, directory: Path) -> bytes:
    """The manifest of the files that lie in ``directory``. ``CheckpointError`` for a name that cannot stand in it."""
    paths = [path for path in directory.rglob("*") if not path.is_dir()]
    files = {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": storage.file_sha256(path)}
        for path in paths
    }
    manifest.check_file_names(files)
    body = {"format_version": FORMAT_VERSION, "pitstop_version": manifest.own_version(), "digest_of_base": digest, "files": files}
    return manifest.sealed(body)
