"""Run the benchmarks one after the other; ``make bench`` calls this.

Those that take long or need data that is not fetched by itself are started by hand: ``data_size``, ``ner`` and ``images``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = (
    "benchmarks.startup",
    "benchmarks.saving",
    "benchmarks.hub",
    "benchmarks.vs_trl",
    "benchmarks.rank",
)


def main() -> int:
    """Run each in a process of its own; return the exit code of the first that fails, else 0."""
    description = "Run these benchmarks one after the other, about an hour in all: " + ", ".join(BENCHMARKS) + "."
    argparse.ArgumentParser(prog="python -m benchmarks.run", description=description).parse_args()
    for module in BENCHMARKS:
        print(f"== {module}", flush=True)
        code = subprocess.run([sys.executable, "-m", module], cwd=REPOSITORY, check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
