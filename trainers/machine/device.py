"""The device, the compute precision and what both mean for reproducibility."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.machine.launch import local_rank


@dataclass(frozen=True)
class Precision:
    """``compute``: type of activations and of 16-bit weights; ``mixed``: Accelerate's name for it."""

    compute: torch.dtype
    mixed: str


def choose_device() -> torch.device:
    """CUDA (this process's card), else MPS, else CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_precision(settings: Settings, device: torch.device) -> Precision:
    """bfloat16 where the device computes in it; float16 on older GPUs or when asked for; float32 on MPS and older processors.

    Raises ``SettingsError`` for USE_FP16 away from CUDA, where float16 training has no loss scaling or no kernels.
    """
    if settings.model.use_fp16:
        if device.type != "cuda":
            raise SettingsError(
                f"USE_FP16 needs a CUDA device; this machine trains on {device.type}.",
                hint="Leave USE_FP16 unset: the type is chosen by device.",
            )
        return Precision(torch.float16, "fp16")
    if device.type == "cuda":
        return (
            Precision(torch.bfloat16, "bf16")
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else Precision(torch.float16, "fp16")
        )
    if device.type == "cpu" and processor_computes_bfloat16():
        return Precision(torch.bfloat16, "bf16")
    return Precision(torch.float32, "no")


def processor_computes_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 products.

    Without them (an x86 processor without AVX-512, say) PyTorch takes some sixty times as long as for float32.
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except AttributeError:  # a build without oneDNN
        return bool(torch.backends.cpu.get_cpu_capability() == "AVX512")


def make_deterministic() -> None:
    """Ask every library for run-to-run equal results; operations that have no such kernel keep their own."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a pass over every new tensor
    torch.backends.cudnn.benchmark = False


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: of the card on CUDA, of this process elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
