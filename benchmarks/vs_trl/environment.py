"""TRL's own virtual environment: made once, and again when ``requirements.txt`` changes."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
DIRECTORY = HERE / ".venv"
PYTHON = DIRECTORY / "bin" / "python"
REQUIREMENTS = HERE / "requirements.txt"
STAMP = DIRECTORY / "requirements.txt"


class EnvironmentFailed(RuntimeError):
    """pip could not install TRL; the message ends with its last words."""


def is_ready() -> bool:
    """Return whether the environment holds what ``requirements.txt`` asks for now."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_bytes() == REQUIREMENTS.read_bytes()


def ensure() -> None:
    """Make the environment unless it is ready; raise ``EnvironmentFailed`` where pip fails."""
    if is_ready():
        return
    print(f"installing TRL into {DIRECTORY}; this downloads PyTorch and takes some minutes", file=sys.stderr, flush=True)
    venv.create(DIRECTORY, clear=True, with_pip=True)
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "-r",
        str(REQUIREMENTS),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise EnvironmentFailed(f"pip exited with {done.returncode}:\n{tail}")
    STAMP.write_bytes(REQUIREMENTS.read_bytes())
