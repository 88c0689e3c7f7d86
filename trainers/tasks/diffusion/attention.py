"""Time-dependent multi-head self-attention (TMSA) and the transformer block around it (Hatamizadeh et al. 2023, section 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeAttention(nn.Module):
    """softmax(QKᵀ/√d + B) V within windows, where Q = x_s W_qs + x_t W_qt, and K and V alike.

    x_s is a position of the feature map and x_t the image's time token. B is a learnt bias for each head and each offset
    between two positions of a window (Liu et al. 2021, "Swin Transformer", equation 4). As x_t is the same for all positions,
    ``k_time`` adds the same number to all scores of a query, which softmax does not see.
    """

    window_offsets: Tensor

    def __init__(self, width: int, *, time_width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.q_space, self.k_space, self.v_space = (nn.Linear(width, width) for _ in range(3))
        self.q_time, self.k_time, self.v_time = (nn.Linear(time_width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("window_offsets", relative_positions(window), persistent=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``x`` of shape ``(n, height, width, channels)`` and ``time`` of shape ``(n, time width)`` give the shape of ``x``."""
        q, k, v = (
            self._windows(space(x) + of_time(time)[:, None, None])
            for space, of_time in ((self.q_space, self.q_time), (self.k_space, self.k_time), (self.v_space, self.v_time))
        )
        # Written out: the fused kernels add up gradients in no fixed order on CUDA, and windows are small.
        # (1, heads, positions, positions); by embedding, since the gradient of indexing is added up in no fixed order on several threads
        bias = F.embedding(self.window_offsets, self.position_bias).permute(2, 0, 1)[None]
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias
        attended = scores.softmax(dim=-1).to(v.dtype) @ v
        mixed: Tensor = self.out(self._whole(attended, x.shape))
        return mixed

    def _windows(self, x: Tensor) -> Tensor:
        """``(n, height, width, channels)`` as ``(n · windows, heads, positions of a window, channels of a head)``."""
        n, height, width, channels = x.shape
        side, head = self.window, channels // self.heads
        cut = x.reshape(n, height // side, side, width // side, side, self.heads, head)
        return cut.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, self.heads, side * side, head)

    def _whole(self, x: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of ``_windows``."""
        n, height, width, channels = shape
        side, head = self.window, channels // self.heads
        cut = x.reshape(n, height // side, width // side, self.heads, side, side, head)
        return cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, height, width, channels)


def relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of a window's positions, int64 of shape ``(window², window²)``.

    Positions count along rows. For a query at (y, x) and a key at (y', x') the row is
    (y − y' + window − 1)(2 window − 1) + x − x' + window − 1.
    """
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    rows = (y[:, None] - y[None] + window - 1) * (2 * window - 1)
    return rows + x[:, None] - x[None] + window - 1


class Mlp(nn.Module):
    """Linear, GELU, Linear, for each position."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, width)`` to the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class TransformerBlock(nn.Module):
    """x̂ = TMSA(LN x, x_t) + x, then MLP(LN x̂) + x̂."""

    def __init__(self, width: int, *, time_width: int, heads: int, window: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = TimeAttention(width, time_width=time_width, heads=heads, window=window)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``x`` of shape ``(n, height, width, channels)`` and ``time`` of shape ``(n, time width)`` give the shape of ``x``."""
        x = self.attention(self.attention_norm(x), time) + x
        y: Tensor = self.mlp(self.mlp_norm(x)) + x
        return y
