"""The shape of a DiffiT network: plain data, checked before anything is built from it, and the sizes that come with the package."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL_TYPE = "diffit"
MAX_SIZE = 4096
"""No length, width or count of classes is larger."""
MAX_STAGES, MAX_BLOCKS, MAX_WINDOW, MAX_RATIO = 6, 64, 16, 16
MAX_PARAMETERS = 2**32

SIZES = ("diffit-cpu", "diffit-cifar-l2", "diffit-cifar-l4")
"""The files in ``sizes/``: 476 thousand, 15 million and 28 million parameters, all for 32×32 RGB images without labels."""


def named_size(name: str) -> Path | None:
    """The configuration file of a size; ``None`` for what is no name of one."""
    return Path(__file__).with_name("sizes") / f"{name}.json" if name in SIZES else None


@dataclass(frozen=True)
class DiffiTConfig:
    """A DiffiT network in image space (Hatamizadeh et al. 2023, "DiffiT: Diffusion Vision Transformers for Image Generation").

    Raises ``ValueError`` for a network that cannot be built; the text says what is wrong and what would do.
    """

    model_type: str = MODEL_TYPE
    image_size: int = 32
    """Height and width of the images, pixels."""
    channels: int = 3
    """Colour channels of the images."""
    widths: tuple[int, ...] = (128, 256, 256)
    """Channels of each stage; a stage has half the resolution of the one before."""
    blocks: int = 2
    """Residual cells of a stage, in the encoder and again in the decoder."""
    heads: int = 4
    """Attention heads of every block."""
    time_width: int = 512
    """Length of the time token."""
    mlp_ratio: int = 4
    """Hidden width of a block's MLP as a multiple of the stage's width."""
    window: int = 4
    """Attention is within windows of this many positions a side."""
    classes: int = 0
    """Labels that the network is conditioned on; 0 is a network without labels."""
    sigma_data: float = 0.5
    """Standard deviation of the pixels of the data, which are in [-1, 1]."""

    def __post_init__(self) -> None:
        _check_values(self)
        _check_shape(self)

    @classmethod
    def from_json(cls, content: Any) -> DiffiTConfig:
        """From what a JSON file holds. ``model_type`` has to be there; what else is missing has its default.

        Raises ``ValueError`` for anything else than an object of known keys with values of their types and ranges.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"a model configuration is a JSON object, not {type(content).__name__}")
        keys = [field.name for field in dataclasses.fields(cls)]
        unknown = [str(key)[:80] for key in content if key not in keys]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such key; known are {', '.join(keys)}")
        if "model_type" not in content:
            raise ValueError(f'model_type is missing; "{MODEL_TYPE}" is the one that this task builds')
        values = dict(content)
        if isinstance(values.get("widths"), list):
            values["widths"] = tuple(values["widths"])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Every key with its value, in types that JSON has; ``from_json`` reads it back."""
        return {**dataclasses.asdict(self), "widths": list(self.widths), "sigma_data": float(self.sigma_data)}

    def resolution(self, stage: int) -> int:
        """Height and width of the feature maps of a stage, 0 for the first."""
        return self.image_size >> stage

    @property
    def parameters(self) -> int:
        """Weights of the network, counted without building it."""
        widths, time = self.widths, self.time_width
        twice = [*widths, *widths[:-1]]  # the last stage stands in the encoder alone
        cells = 0
        for width in twice:
            attention = 4 * (width * width + width) + 3 * time * width + (2 * self.window - 1) ** 2 * self.heads
            hidden = self.mlp_ratio * width
            cells += self.blocks * (3 * 2 * width + _conv(width, width) + attention + 2 * width * hidden + hidden + width)
        between = sum(_conv(a, b) + _conv(b, a) for a, b in itertools.pairwise(widths))
        ends = _conv(self.channels, widths[0]) + 2 * widths[0] + _conv(widths[0], self.channels)
        return cells + between + ends + 2 * (time * time + time) + self.classes * time


def _conv(channels_in: int, channels_out: int) -> int:
    return 9 * channels_in * channels_out + channels_out


def _check_values(config: DiffiTConfig) -> None:
    if config.model_type != MODEL_TYPE:
        raise ValueError(
            f'model_type: {str(config.model_type)[:80]!r} is unknown; "{MODEL_TYPE}" is the one that this task builds'
        )
    _whole("image_size", config.image_size, 1, MAX_SIZE)
    _whole("channels", config.channels, 1, MAX_SIZE)
    _whole("blocks", config.blocks, 1, MAX_BLOCKS)
    _whole("heads", config.heads, 1, MAX_SIZE)
    _whole("time_width", config.time_width, 4, MAX_SIZE)
    _whole("mlp_ratio", config.mlp_ratio, 1, MAX_RATIO)
    _whole("window", config.window, 1, MAX_WINDOW)
    _whole("classes", config.classes, 0, MAX_SIZE)
    if not isinstance(config.widths, tuple) or not 1 <= len(config.widths) <= MAX_STAGES:
        raise ValueError(f"widths: {str(config.widths)[:80]} is not a list of 1 to {MAX_STAGES} widths, one a stage")
    for width in config.widths:
        _whole("widths", width, 1, MAX_SIZE)
    sigma = config.sigma_data
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not (0 < sigma <= MAX_SIZE):
        raise ValueError(
            f"sigma_data: {str(sigma)[:80]} is not a number above 0 and up to {MAX_SIZE}; 0.5 fits pixels in [-1, 1]"
        )


def _whole(name: str, value: Any, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ValueError(f"{name}: {str(value)[:80]} is not a whole number from {lowest} to {highest}")


def _check_shape(config: DiffiTConfig) -> None:
    step = math.lcm(config.heads, 4)
    for width in config.widths:
        if width % step:
            raise ValueError(
                f"widths: {width} is not a multiple of {step}; each width is divided among {config.heads} heads and into groups of 4 or more"
            )
    if config.time_width % 2:
        raise ValueError(
            f"time_width: {config.time_width} is odd; one half are cosines and the other sines, so choose an even number"
        )
    unit = config.window << (len(config.widths) - 1)
    if config.image_size % unit:
        raise ValueError(
            f"image_size: {config.image_size} is not a multiple of {unit}, and the window of {config.window} has to divide the "
            f"resolution of each of {len(config.widths)} stages; choose such a size, a smaller window or fewer widths"
        )
    if config.parameters > MAX_PARAMETERS:
        raise ValueError(
            f"the network would have {config.parameters:,} parameters, more than {MAX_PARAMETERS:,}; choose smaller widths or fewer blocks"
        )
