"""DiffiT: a U-shaped network of residual cells whose attention knows the noise level (Hatamizadeh et al. 2023, section 3).

A module's path tells its stage: ``encoder.I.J`` and ``decoder.I.J`` are cell J at the resolution image_size / 2^I.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pitstop.trainers.tasks.diffusion.attention import TransformerBlock
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig

LONGEST_PERIOD = 10_000  # of the sinusoids, in units of 2π


class DiffiT(nn.Module):
    """The network F of the EDM denoiser (see ``edm.denoise``). It starts out answering zero."""

    def __init__(self, config: DiffiTConfig) -> None:
        super().__init__()
        self.config = config
        widths, last = config.widths, len(config.widths) - 1
        self.time = TimeEmbedding(config.time_width)
        self.class_embedding = nn.Embedding(config.classes, config.time_width) if config.classes else None
        self.conv_in = _conv(config.channels, widths[0])
        self.encoder = nn.ModuleList(_stage(config, width) for width in widths)
        self.down = nn.ModuleList(_conv(widths[i], widths[i + 1], stride=2) for i in range(last))
        self.up = nn.ModuleList(_conv(widths[i + 1], widths[i]) for i in range(last))
        self.decoder = nn.ModuleList(_stage(config, width) for width in widths[:-1])
        self.norm_out = _group_norm(widths[0])
        self.conv_out = _conv(widths[0], config.channels)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)
        if self.class_embedding is not None:
            nn.init.normal_(self.class_embedding.weight, std=0.02)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The answer to ``x`` of shape ``(n, channels, image_size, image_size)``, of that shape.

        ``c_noise`` is ln σ/4 of each image and ``labels``, int64, its class, both of shape ``(n,)``. Labels mean nothing to a
        network without classes. Raises ``ValueError`` for images of another shape, and for no labels where there are classes.
        """
        side = self.config.image_size
        if tuple(x.shape[1:]) != (self.config.channels, side, side):
            raise ValueError(f"images of shape {tuple(x.shape[1:])}; the network is for {(self.config.channels, side, side)}")
        time = self._time_token(c_noise, labels, x.dtype)
        x = _through(self.encoder[0], self.conv_in(x), time)
        skips = []
        for down, stage in zip(self.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = _through(stage, down(x), time)
        for up, stage in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = up(_doubled(x)) + skips.pop()
            x = _through(stage, x, time)
        y: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return y

    def _time_token(self, c_noise: Tensor, labels: Tensor | None, dtype: torch.dtype) -> Tensor:
        token = self.time(c_noise, dtype)
        if self.class_embedding is not None:
            if labels is None:
                raise ValueError(f"the network has {self.config.classes} classes and was given no labels")
            token = token + self.class_embedding(labels)
        return F.silu(token)


class TimeEmbedding(nn.Module):
    """Linear, swish, Linear on the sinusoids of c_noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, c_noise: Tensor, dtype: torch.dtype) -> Tensor:
        """``(n,)`` to ``(n, width)``, computed in ``dtype`` from float32 sinusoids."""
        token: Tensor = self.fc2(F.silu(self.fc1(sinusoid(c_noise, self.width).to(dtype))))
        return token


def sinusoid(c_noise: Tensor, width: int) -> Tensor:
    """cos(f c) and then sin(f c) for width/2 frequencies from 1 down to 1/10,000: float32 of shape ``(n, width)`` of ``(n,)``.

    The positional embedding of Vaswani et al. 2017, section 3.5, as Karras et al. 2022 feed it with ln σ/4.
    """
    steps = torch.arange(width // 2, dtype=torch.float32, device=c_noise.device) / (width // 2 - 1)
    angles = c_noise.float()[:, None] * (1.0 / LONGEST_PERIOD) ** steps
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualCell(nn.Module):
    """Block(Conv3×3(Swish(GN x)), x_t) + x."""

    def __init__(self, width: int, block: TransformerBlock) -> None:
        super().__init__()
        self.norm = _group_norm(width)
        self.conv = _conv(width, width)
        self.block = block

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``x`` of shape ``(n, channels, height, width)`` and ``time`` of shape ``(n, time width)`` give the shape of ``x``."""
        y = self.conv(F.silu(self.norm(x))).permute(0, 2, 3, 1)
        z: Tensor = self.block(y, time).permute(0, 3, 1, 2) + x
        return z


def _stage(config: DiffiTConfig, width: int) -> nn.ModuleList:
    return nn.ModuleList(
        ResidualCell(
            width,
            TransformerBlock(
                width, time_width=config.time_width, heads=config.heads, window=config.window, mlp_ratio=config.mlp_ratio
            ),
        )
        for _ in range(config.blocks)
    )


def _through(stage: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    for cell in stage.children():
        x = cell(x, time)
    return x


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, width // 4), width)


def _doubled(x: Tensor) -> Tensor:
    """Each position as four, ``(n, channels, 2 · height, 2 · width)``: nearest-neighbour upsampling.

    Not ``F.interpolate``, whose gradient on CUDA is added up in no fixed order.
    """
    n, channels, height, width = x.shape
    return x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(n, channels, 2 * height, 2 * width)
