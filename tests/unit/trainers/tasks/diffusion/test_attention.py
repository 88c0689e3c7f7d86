"""TMSA and the block against loops and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pitstop.trainers.tasks.diffusion.attention import TimeAttention, TransformerBlock, relative_positions


def _attention(width: int = 4, *, window: int = 2, seed: int = 0) -> TimeAttention:
    """Attention of two heads with time width 6; all its weights are random, the position biases too."""
    attention = TimeAttention(width, time_width=6, heads=2, window=window)
    generator = torch.Generator().manual_seed(seed)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return attention


def _inputs(n: int, side: int, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(n, side, side, width, generator=generator), torch.randn(n, 6, generator=generator)


def _by_loops(attention: TimeAttention, x: Tensor, time: Tensor, window: int) -> Tensor:
    """For each image, position and head: scores of the positions in the same window, softmax, weighted sum, projection."""
    n, side, _, width = x.shape
    head = width // attention.heads
    answer = torch.zeros_like(x)
    for image in range(n):
        q, k, v = (
            x[image] @ space.weight.T + space.bias + of_time.weight @ time[image]
            for space, of_time in (
                (attention.q_space, attention.q_time),
                (attention.k_space, attention.k_time),
                (attention.v_space, attention.v_time),
            )
        )
        for y0 in range(side):
            for x0 in range(side):
                keys = [
                    (y, z) for y in range(side) for z in range(side) if (y // window, z // window) == (y0 // window, x0 // window)
                ]
                for h in range(attention.heads):
                    part = slice(h * head, (h + 1) * head)
                    rows = [(y0 - y + window - 1) * (2 * window - 1) + x0 - z + window - 1 for y, z in keys]
                    scores = [
                        float(q[y0, x0, part] @ k[y, z, part]) / math.sqrt(head) + float(attention.position_bias[row, h])
                        for (y, z), row in zip(keys, rows, strict=True)
                    ]
                    total = sum(math.exp(score) for score in scores)
                    for (y, z), score in zip(keys, scores, strict=True):
                        answer[image, y0, x0, part] += math.exp(score) / total * v[y, z, part]
    return answer @ attention.out.weight.T + attention.out.bias


@torch.no_grad()
@pytest.mark.parametrize(("side", "window"), [(4, 2), (3, 3)])
def test_attention_is_what_loops_over_heads_positions_and_biases_give(side: int, window: int) -> None:
    attention = _attention(window=window)
    x, time = _inputs(2, side)
    torch.testing.assert_close(attention(x, time), _by_loops(attention, x, time, window), atol=1e-4, rtol=1e-4)


def test_the_bias_of_a_pair_depends_on_its_offset_alone() -> None:
    """By hand for a window of 2: row 4 is no offset, 5 a key one to the left, 7 one above, 8 above and to the left."""
    assert relative_positions(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert relative_positions(4).min() == 0
    assert len(relative_positions(4).unique()) == 49


@torch.no_grad()
def test_a_position_is_seen_by_its_window_and_nowhere_else() -> None:
    attention = _attention(window=4)
    x, time = _inputs(2, 8)
    changed = x.clone()
    changed[1, 2, 5] += 1
    differs = (attention(x, time) != attention(changed, time)).any(dim=-1)
    wanted = torch.zeros(2, 8, 8, dtype=torch.bool)
    wanted[1, 0:4, 4:8] = True
    assert torch.equal(differs, wanted)


def test_windows_keep_neighbours_together_and_go_back_to_their_places() -> None:
    attention = TimeAttention(4, time_width=6, heads=2, window=2)
    x = torch.arange(16.0).reshape(1, 4, 4, 1) * 100 + torch.arange(4.0)
    windows = attention._windows(x)
    assert windows.shape == (4, 2, 4, 2)
    assert (windows[:, 0, :, 0] / 100).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert windows[0, 1, 0].tolist() == [2, 3], "the second head has the second half of the channels"
    assert torch.equal(attention._whole(windows, x.shape), x)


@torch.no_grad()
def test_the_time_part_of_the_keys_cannot_change_the_answer_and_the_others_do() -> None:
    attention = _attention()
    x, time = _inputs(2, 4)
    before = attention(x, time)
    for name, changes in (("k_time", False), ("q_time", True), ("v_time", True)):
        weight = getattr(attention, name).weight
        kept = weight.clone()
        torch.nn.init.normal_(weight)
        difference = (attention(x, time) - before).abs().max()
        assert difference > 0.1 if changes else difference < 1e-5, name
        weight.copy_(kept)


@torch.no_grad()
def test_each_image_has_its_own_time() -> None:
    attention = _attention()
    x, time = _inputs(2, 4)
    for image in (0, 1):
        alone = attention(x[image : image + 1], time[image : image + 1])
        torch.testing.assert_close(attention(x, time)[image : image + 1], alone)


@torch.no_grad()
def test_a_block_adds_attention_and_then_the_mlp_each_of_a_norm() -> None:
    block = TransformerBlock(4, time_width=6, heads=2, window=2, mlp_ratio=3)
    generator = torch.Generator().manual_seed(1)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    x, time = _inputs(2, 4)

    def norm(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        centred = values - values.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias

    inner = block.attention(norm(x, block.attention_norm.weight, block.attention_norm.bias), time) + x
    hidden = norm(inner, block.mlp_norm.weight, block.mlp_norm.bias) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    assert hidden.shape[-1] == 12
    gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    wanted = gelu @ block.mlp.fc2.weight.T + block.mlp.fc2.bias + inner
    torch.testing.assert_close(block(x, time), wanted, atol=1e-4, rtol=1e-4)
