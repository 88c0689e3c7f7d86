"""The environment in which a process takes the look-alike for the Hub."""

from __future__ import annotations

import os
from pathlib import Path

from support.hub.server import Hub

WRITE, READ, OTHER = "hf_write", "hf_read", "hf_other"
"""The tokens of ``access.TOKENS``."""


def environment(hub: Hub, mode: str, home: Path, token: str | None = WRITE) -> dict[str, str]:
    """This process's environment, pointed at ``hub``; ``mode`` is "lfs" or "xet", ``home`` becomes HF_HOME."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ours |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1" if mode == "lfs" else "0",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "20ms",
        "OMP_NUM_THREADS": "1",
    }
    return ours | ({"HF_TOKEN": token} if token else {})
