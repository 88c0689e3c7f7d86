"""``pitstop doctor``: what this machine can do, each thing tried for real."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pitstop.cli.arguments.foreign import pass_on
from pitstop.cli.terminal.output import paint, print_json, say, tell
from pitstop.configs.errors import EXIT_USAGE
from pitstop.configs.paths import obstacle
from pitstop.configs.shown import human_size

Status = Literal["ok", "warn", "fail"]

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "huggingface_hub", "safetensors", "datasets")
_LITTLE_MEMORY = 4 << 30
_LITTLE_DISK = 5 << 30
_NO_DISK = 256 << 20
_PROBE_SECONDS = 120

# In a process of its own: a broken native library ends the process that loads it.
_QUANTISE = """
import torch
import bitsandbytes.functional as F
device = "cuda" if torch.cuda.is_available() else "cpu"
weight = torch.linspace(-1, 1, 64 * 64, dtype=torch.bfloat16, device=device).reshape(64, 64)
packed, state = F.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
error = (F.dequantize_4bit(packed, state).float() - weight.float()).abs().mean().item()
assert packed.numel() == weight.numel() // 2 and error < 0.05, error
print(device)
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``hint`` says what to do where it is not ok."""

    name: str
    status: Status
    detail: str
    hint: str | None = None


def doctor(
    base_dir: Annotated[
        Path | None,
        typer.Option("--base-dir", metavar="DIR", help="Directory of the runs to check (default: OUTPUT_DIR, else checkpoints)."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check what this machine can do.

    Every check is run for real: a small tensor is quantised to 4 bits, and links and locks are made in the directory of the
    runs. A warning is a limitation. A failure keeps training from working, and the exit code is then 2.

    Examples:

      pitstop doctor
      pitstop doctor --base-dir /data/checkpoints
      pitstop doctor --json
    """
    checks = list(_checks(base_dir))
    failed = [check for check in checks if check.status == "fail"]
    if json_output:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            color = {"ok": "green", "warn": "yellow", "fail": "red"}[check.status]
            say(f"{paint(f'{check.status:4}', color, 'bold')}  {check.name:14}  {check.detail}")
            if check.hint:
                say(f"{'':22}{check.hint}")
    if failed:
        raise typer.Exit(EXIT_USAGE)


def _checks(base_dir: Path | None) -> Iterator[Check]:
    directory, problem = base_dir or Path("checkpoints"), None
    try:
        tell(pass_on(None))  # before a library reads the environment
        if base_dir is None:
            from pitstop.configs.load import load_settings

            directory = Path(load_settings().settings.training.checkpoint.base_dir)
    except Exception as error:  # noqa: BLE001 - bad settings are a finding here, with their own message
        problem = Check("settings", "fail", getattr(error, "message", str(error)), getattr(error, "hint", None))
    yield check_python()
    yield check_libraries()
    yield check_accelerator()
    yield check_quantisation()
    yield check_flash_attention()
    yield check_memory()
    if problem is not None:
        yield problem
    yield check_disk(directory)
    yield check_directory(directory)
    yield check_hub_cache()
    yield check_token()
    yield check_demo_model()


def check_python() -> Check:
    """Python's version and place."""
    return Check("python", "ok", f"{sys.version.split()[0]} in {sys.prefix}")


def check_libraries() -> Check:
    """Versions of the libraries that training stands on."""
    from importlib.metadata import PackageNotFoundError, version

    versions, missing = [], []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            "libraries", "fail", f"missing: {', '.join(missing)}", "install Pitstop again: pip install --force-reinstall pitstop"
        )
    return Check("libraries", "ok", ", ".join(versions))


def check_accelerator() -> Check:
    """The devices that torch can use."""
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - whatever keeps torch from loading is the finding
        return Check(
            "accelerator", "fail", f"torch does not load: {error}", "install torch again, in the version for this machine"
        )
    if torch.cuda.is_available():
        return Check("accelerator", "ok", "; ".join(_describe_gpu(torch, index) for index in range(torch.cuda.device_count())))
    if torch.backends.mps.is_available():
        return Check("accelerator", "warn", "MPS (Apple)", "4-bit training needs CUDA or a CPU here: use --method lora")
    detail = f"no GPU that torch {torch.__version__} can use; {torch.get_num_threads()} CPU threads"
    return Check("accelerator", "warn", detail, "training runs on the CPU: fine for small models, slow for large ones")


def _describe_gpu(torch: Any, index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    kind = "bfloat16" if properties.major >= 8 else "float16 only"
    return f"CUDA {index}: {properties.name}, {human_size(properties.total_memory)}, {kind}"


def check_quantisation() -> Check:
    """Whether bitsandbytes quantises a tensor to NF4 with double quantisation, and back."""
    hint = "4-bit training needs it; --method lora works without"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _QUANTISE],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("bitsandbytes", "fail", f"no answer in {_PROBE_SECONDS} s", hint)
    if probe.returncode != 0:
        reason = (probe.stderr.strip().splitlines() or [f"ended with code {probe.returncode}"])[-1]
        return Check("bitsandbytes", "fail", f"4-bit quantisation does not work: {reason}", hint)
    return Check("bitsandbytes", "ok", f"quantised a tensor to NF4 and back on {probe.stdout.strip()}")


def check_flash_attention() -> Check:
    """Whether FlashAttention 2 is installed; nothing needs it."""
    from importlib.util import find_spec

    if find_spec("flash_attn") is None:
        return Check("flash-attn", "ok", "not installed: PyTorch's SDPA is used")
    return Check("flash-attn", "ok", "installed; USE_FLASH_ATTENTION=true uses it on CUDA")


def check_memory() -> Check:
    """Main memory that is free for use."""
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{human_size(memory.available)} of {human_size(memory.total)} available"
    if memory.available < _LITTLE_MEMORY:
        return Check(
            "memory", "warn", detail, "close other programs, or choose a small model, --batch-size 1 and a smaller --max-length"
        )
    return Check("memory", "ok", detail)


def check_disk(directory: Path) -> Check:
    """Free space where the runs are, or would be."""
    free = shutil.disk_usage(_nearest(directory)).free
    detail = f"{human_size(free)} free for {directory}"
    if free >= _LITTLE_DISK:
        return Check("disk", "ok", detail)
    hint = "free some space, or choose another disk with --base-dir or OUTPUT_DIR"
    return Check("disk", "fail" if free < _NO_DISK else "warn", detail, hint)


def check_directory(directory: Path) -> Check:
    """What the filesystem of the runs can do: writing, locks, links. The directory itself is not made."""
    if problem := obstacle(directory.expanduser()):
        return Check("runs", "fail", f"{problem}.", "choose another directory with --base-dir or OUTPUT_DIR")
    parent = _nearest(directory)
    try:
        with tempfile.TemporaryDirectory(prefix=".pitstop-doctor-", dir=parent) as scratch:
            missing = [name for name, works in _ABILITIES.items() if not works(Path(scratch))]
    except OSError as error:
        hint = "change its permissions, or choose another directory with --base-dir or OUTPUT_DIR"
        return Check("runs", "fail", f"cannot write in {parent}: {error.strerror}", hint)
    detail = f"{directory} {'is' if directory.is_dir() else 'will be made; its place is'} writable"
    if "locks" in missing:
        return Check("runs", "warn", f"{detail}, but file locks do not work", "never let two processes work on one run there")
    if missing:
        return Check("runs", "warn", f"{detail}, but without {' and '.join(missing)}", _WITHOUT_LINKS)
    return Check("runs", "ok", f"{detail}, with {', '.join(_ABILITIES)}")


_WITHOUT_LINKS = "runs work there: the base model is referred to instead of linked, best and last are small text files"


def _nearest(directory: Path) -> Path:
    """``directory``, or the nearest one above it that exists."""
    directory = directory.expanduser().absolute()
    return next(path for path in (directory, *directory.parents) if path.is_dir())


def _can_lock(scratch: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with _file(scratch, "lock").open("w") as file:
        return _works(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


_ABILITIES: dict[str, Callable[[Path], bool]] = {
    "hard links": lambda scratch: _works(lambda: os.link(_file(scratch, "original"), scratch / "hard")),
    "symbolic links": lambda scratch: _works(lambda: (scratch / "soft").symlink_to("original")),
    "locks": _can_lock,
}


def _file(scratch: Path, name: str) -> Path:
    path = scratch / name
    path.write_bytes(b"x")
    return path


def _works(action: Callable[[], Any]) -> bool:
    with contextlib.suppress(OSError, NotImplementedError):
        action()
        return True
    return False


def check_hub_cache() -> Check:
    """Where downloaded models are kept, and the room there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    nearest = _nearest(Path(HF_HUB_CACHE))
    problem = obstacle(Path(HF_HUB_CACHE)) or _refusal(nearest)
    if problem:
        return Check("Hub cache", "warn", f"{HF_HUB_CACHE} cannot be written: {problem}", "set HF_HOME to a directory that can")
    free = shutil.disk_usage(nearest).free
    return Check("Hub cache", "ok", f"{HF_HUB_CACHE}, {human_size(free)} free (HF_HOME moves it)")


def _refusal(directory: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return f"{directory}: {error.strerror or error}"


def check_token() -> Check:
    """Whether a Hub token is at hand; its value is never shown. The Hub is not asked what it may do."""
    from huggingface_hub import get_token

    from pitstop.configs.errors import SettingsError
    from pitstop.configs.load import load_settings

    pushes = False
    with contextlib.suppress(SettingsError):  # reported by the line about settings
        hub = load_settings().settings.hub
        if hub.token is not None:
            return Check("Hub token", "ok", "present in the settings")
        pushes = hub.push
    if get_token():
        return Check("Hub token", "ok", "present (saved by the Hub's own login)")
    if pushes:
        return Check("Hub token", "warn", "none, but PUSH_TO_HUB is on", "set HF_TOKEN, or log in with `hf auth login`")
    return Check("Hub token", "ok", "none: enough for public models; gated ones and pushing need HF_TOKEN")


def check_demo_model() -> Check:
    """Whether the demo model is in the cache."""
    from pitstop.trainers.models.demo_model import demo_model_path

    path = demo_model_path()
    return Check("demo model", "ok", f"in {path}" if path else "not fetched: pitstop fetch-demo gets it without the Hub")
