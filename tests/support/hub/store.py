"""A small git-like store: repositories of commits, each with its whole tree, and the contents that the trees point to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_LFS_NAME = re.compile(
    r"\.(safetensors|bin|pt|pth|ckpt|onnx|h5|npz|npy|pkl|pickle|gz|zip|zst|xz|tar|tgz|7z|arrow|parquet|"
    r"model|msgpack|gguf|joblib|tflite|wasm)$"
)
_GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.bin filter=lfs diff=lfs merge=lfs -text\n"
_DIRECTORIES = ("repos", "blobs", "lfs", "parts", "xorbs")
MAIN = "refs/heads/main"


def git_sha(content: bytes) -> str:
    """What git calls a blob of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def now() -> str:
    """This moment as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(frozen=True)
class Entry:
    """A file in a tree. ``oid`` is git's blob SHA-1, of the pointer for a large file, which alone has a ``sha256``."""

    oid: str
    size: int
    sha256: str | None = None
    pointer_size: int = 0
    xet: str | None = None

    @property
    def etag(self) -> str:
        """What tells this content from any other: the SHA-256 of a large file, else the blob's SHA-1."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """``tree`` maps every path to its entry."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    tree: dict[str, Entry]


@dataclass
class Repository:
    """``kind`` is models, datasets or spaces; ``refs`` maps refs/heads/… and refs/tags/… to commits."""

    kind: str
    id: str
    private: bool = True
    gated: bool = False
    created: str = field(default_factory=now)
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organisation that it belongs to."""
        return self.id.split("/")[0]

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, a full ref, or the beginning of a commit's name of 7 digits or more."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        hits = [oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)]
        return self.commits[hits[0]] if len(hits) == 1 else None

    def history(self, commit: Commit) -> Iterator[Commit]:
        """``commit`` and all before it, newest first."""
        step: Commit | None = commit
        while step is not None:
            yield step
            step = self.commits[step.parent] if step.parent else None


class Store:
    """Everything that the Hub keeps, under one directory, from which a later ``Store`` reads it again."""

    def __init__(self, root: Path, lfs_threshold: int) -> None:
        self.root = root
        self.lfs_threshold = lfs_threshold
        self.lock = threading.RLock()
        self.repositories: dict[tuple[str, str], Repository] = {}
        for name in _DIRECTORIES:
            (root / name).mkdir(parents=True, exist_ok=True)
        for file in sorted((root / "repos").glob("*.json")):
            repository = _read(json.loads(file.read_bytes()))
            self.repositories[repository.kind, repository.id] = repository

    def is_large(self, path: str, size: int) -> bool:
        """Whether a file goes to LFS: for its size or its name."""
        return size >= self.lfs_threshold or _LFS_NAME.search(path) is not None

    def lfs(self, sha256: str) -> Path:
        """Where the large file of this hash lies, if it does."""
        return self.root / "lfs" / sha256

    def file(self, entry: Entry) -> Path:
        """Where an entry's content lies."""
        return self.lfs(entry.sha256) if entry.sha256 else self.root / "blobs" / entry.oid

    def blob(self, content: bytes) -> Entry:
        """Store a regular file."""
        entry = Entry(git_sha(content), len(content))
        self.write(self.file(entry), content)
        return entry

    def large(self, sha256: str, size: int, xet: str | None = None) -> Entry:
        """The entry of a large file that is stored already."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return Entry(git_sha(pointer), size, sha256, len(pointer), xet)

    def add(self, path: str, content: bytes) -> Entry:
        """Store a file as the Hub would keep it under this path."""
        if not content or not self.is_large(path, len(content)):
            return self.blob(content)
        entry = self.large(hashlib.sha256(content).hexdigest(), len(content))
        self.write(self.file(entry), content)
        return entry

    def create(self, kind: str, name: str, *, private: bool) -> Repository:
        """A new repository with its first commit."""
        repository = Repository(kind, name, private)
        self.repositories[kind, name] = repository
        self.commit(repository, MAIN, {".gitattributes": self.blob(_GITATTRIBUTES)}, "initial commit")
        return repository

    def remove(self, repository: Repository) -> None:
        """Forget a repository; the contents stay."""
        del self.repositories[repository.kind, repository.id]
        self._index(repository).unlink()

    def commit(
        self,
        repository: Repository,
        ref: str,
        tree: Mapping[str, Entry],
        title: str,
        *,
        message: str = "",
        author: str = "tester",
        rooted: bool = False,
    ) -> Commit:
        """Put a commit on top of ``ref``, or have ``ref`` begin anew with it (``rooted``)."""
        parent = None if rooted else repository.refs.get(ref)
        facts = [parent, title, message, author, now(), len(repository.commits), sorted((p, e.oid) for p, e in tree.items())]
        oid = hashlib.sha1(json.dumps(facts).encode()).hexdigest()
        commit = Commit(oid, parent, title, message, author, str(facts[4]), dict(tree))
        repository.commits[oid] = commit
        repository.refs[ref] = oid
        self.save(repository)
        return commit

    def save(self, repository: Repository) -> None:
        """Write a repository's index."""
        self.write(self._index(repository), json.dumps(asdict(repository)).encode())

    def _index(self, repository: Repository) -> Path:
        return self.root / "repos" / f"{repository.kind}--{repository.id.replace('/', '--')}.json"

    def write(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all."""
        temporary = path.with_name(f"{path.name}.{threading.get_ident()}.tmp")
        temporary.write_bytes(content)
        temporary.replace(path)


def directories(paths: Iterable[str], under: str = "") -> set[str]:
    """Every directory below the prefix ``under`` (empty, or ending in a slash) that the paths need."""
    found: set[str] = set()
    for path in paths:
        found.update(path[:at] for at in range(len(under), len(path)) if path[at] == "/")
    return found


def _read(stored: dict[str, Any]) -> Repository:
    commits = {}
    for oid, commit in stored.pop("commits").items():
        tree = {path: Entry(**entry) for path, entry in commit.pop("tree").items()}
        commits[oid] = Commit(**commit, tree=tree)
    return Repository(**stored, commits=commits)
