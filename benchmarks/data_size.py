"""What a training takes of memory, and of time until its first step, on a JSONL file that would not fit into memory as Python objects.

Usage: ``python -m benchmarks.data_size [--gb 2] [--steps 3] [--directory /tmp] [--json]``. A tiny model is trained for a few steps on a
few records, which is what the libraries and the model take, and then twice on the large file: the first start tokenises it, the second
takes it from the cache. Anonymous memory (the process's own) and mapped files (the cache's pages, which the system takes back when it
wants to) are told apart. File, model and cache are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine

WORDS = 4096
MAX_LENGTH = 512
PACKAGES = ("pitstop", "torch", "transformers", "tokenizers", "pyarrow")


@dataclass(frozen=True)
class Start:
    """One start of a training: seconds to its first step, and the peaks of its memory in MiB."""

    first_step_s: float
    anonymous_mib: float
    mapped_files_mib: float
    resident_mib: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gb", type=float, default=2.0, help="size of the file in 10^9 bytes")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of each training")
    parser.add_argument("--directory", type=Path, help="where to make the file and the cache; the system's by default")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pitstop-data-", dir=chosen.directory) as work:
        found = measure(Path(work), round(chosen.gb * 10**9), chosen.steps)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return 0
    print(json.dumps(found["machine"]), json.dumps(found["versions"]))
    print(f"{found['bytes']:,} bytes, {found['records']:,} records; cache {found['cache_bytes']:,} bytes")
    for name in ("small", "first", "second"):
        start = found[name]
        print(
            f"{name:7} first step after {start['first_step_s']:8.1f} s; peaks: {start['anonymous_mib']:7.0f} MiB anonymous, "
            f"{start['mapped_files_mib']:7.0f} MiB of mapped files, {start['resident_mib']:7.0f} MiB together"
        )
    return 0


def measure(work: Path, size: int, steps: int) -> dict[str, object]:
    """Make model and data in ``work`` and train three times; the figures as JSON-able values."""
    words = vocabulary()
    subprocess.run([sys.executable, "-c", _MAKE_MODEL, str(work / "model"), json.dumps(words)], check=True)
    write_text(work / "small.jsonl", words, 100_000)
    records = write_text(work / "large.jsonl", words, size)
    small = start(work, work / "small.jsonl", steps)
    first = start(work, work / "large.jsonl", steps)
    second = start(work, work / "large.jsonl", steps)
    return {
        "machine": machine.describe(),
        "versions": machine.versions(PACKAGES),
        "bytes": (work / "large.jsonl").stat().st_size,
        "records": records,
        "cache_bytes": sum(file.stat().st_size for file in (work / "cache").rglob("*") if file.is_file()),
        "small": asdict(small),
        "first": asdict(first),
        "second": asdict(second),
    }


def vocabulary() -> list[str]:
    """Made-up words of 6 to 18 letters, always the same."""
    rng = random.Random(0)
    return sorted({"".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(6, 18))) for _ in range(WORDS)})


def write_text(path: Path, words: list[str], size: int) -> int:
    """Write records of plain text, 10 to 300 words each, until the file has ``size`` bytes; returns how many."""
    rng = random.Random(1)
    texts = [" ".join(rng.choices(words, k=rng.randint(10, 300))) for _ in range(5000)]
    records = written = 0
    with path.open("w", encoding="ascii", buffering=1 << 20) as file:
        while written < size:
            written += file.write(json.dumps({"text": f"{rng.choice(words)} {texts[records % len(texts)]}"}) + "\n")
            records += 1
    return records


def start(work: Path, data: Path, steps: int) -> Start:
    """Train once and watch the process; raises ``RuntimeError`` with what it said where it fails."""
    command = [
        sys.executable,
        "-m",
        "pitstop.cli",
        "train",
        "--model-id",
        work / "model",
        "--dataset",
        data,
        "--base-dir",
        work / "runs",
    ]
    command += ["--method", "lora", "--max-length", MAX_LENGTH, "--max-steps", steps, "--logging-steps", 1, "--lora-rank", 4]
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    with (work / "output.txt").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, env=environment)
        peaks = {"RssAnon": 0, "RssFile": 0, "VmRSS": 0}
        first_step = None
        while process.poll() is None:
            for name, value in _memory(process.pid).items():
                peaks[name] = max(peaks[name], value)
            if first_step is None and "step 1/" in (work / "output.txt").read_text(encoding="utf-8"):
                first_step = time.monotonic() - began
            time.sleep(0.05)
        output.seek(0)
        said = output.read()
    if process.returncode != 0 or first_step is None:
        raise RuntimeError(f"the training ended with code {process.returncode}:\n{said}")
    sys.stderr.write(said)
    mib = {name: value / 1024 for name, value in peaks.items()}
    return Start(first_step, mib["RssAnon"], mib["RssFile"], mib["VmRSS"])


def _memory(pid: int) -> dict[str, int]:
    """Resident memory of a process in KiB, by kind, from Linux's ``/proc``; nothing where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines if line.startswith(("RssAnon", "RssFile", "VmRSS")))
    return {name: int(value.split()[0]) for name, value in pairs}


_MAKE_MODEL = """
import json, sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

directory, words = sys.argv[1], ["<eos>", "<unk>", *json.loads(sys.argv[2])]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")
fast.save_pretrained(directory)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, eos_token_id=0, pad_token_id=0, bos_token_id=None,
)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
"""


if __name__ == "__main__":
    sys.exit(main())
