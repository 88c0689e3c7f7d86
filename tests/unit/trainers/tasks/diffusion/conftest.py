"""A small network whose output convolution is not zero any more, as after some training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.model import DiffiT


@pytest.fixture
def make_network() -> Callable[..., DiffiT]:
    """Makes a network for 16×16 images, or of given settings; the global generator is left as it was."""

    def make(seed: int = 0, **settings: object) -> DiffiT:
        shape = {"image_size": 16, "widths": (8, 16, 16), "blocks": 1, "heads": 2, "time_width": 16, **settings}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = DiffiT(DiffiTConfig(**shape))  # type: ignore[arg-type]
            torch.nn.init.normal_(network.conv_out.weight, std=0.1)
        return network

    return make
