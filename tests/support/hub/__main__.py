"""Run the look-alike by hand, from ``tests/``: ``python -m support.hub --root DIR --port 8765``, then HF_ENDPOINT=http://127.0.0.1:8765.

Tokens: hf_write and hf_read belong to "tester" (in the organisation "team"), hf_other to "stranger". Faults are set by
``POST /_test/faults`` with one rule or a list of rules in JSON; ``DELETE /_test`` clears rules and log, ``GET /_test/log`` and
``GET /_test/state`` show what was asked for and what is stored.
"""

from __future__ import annotations

import argparse
import json
import threading

from support.hub.server import Hub


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m support.hub", description="A look-alike of the Hugging Face Hub.")
    parser.add_argument("--root", required=True, help="where everything is stored")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--no-xet", action="store_true", help="LFS only")
    parser.add_argument("--part-size", type=int, help="bytes; larger files are sent in parts")
    parser.add_argument("--page", type=int, default=1000, help="entries in a page of a listing")
    given = parser.parse_args()
    with Hub(given.root, given.port, xet=not given.no_xet, part_size=given.part_size, page=given.page) as hub:
        print(json.dumps({"endpoint": hub.endpoint, "cdn": hub.cdn}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
