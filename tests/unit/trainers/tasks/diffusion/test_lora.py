"""LoRA on the network: nothing before training, and the same answers once it is fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pitstop.trainers.tasks.diffusion.edm import denoise, losses
from pitstop.trainers.tasks.diffusion.model import DiffiT
from support.image_models import linear_targets, stage_of

Make = Callable[..., DiffiT]
RANKS = (12, 10, 8)
SIGMA = torch.tensor([0.2, 1.0])


def _adapted(network: DiffiT) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = linear_targets(network)
    ranks = {path: RANKS[stage_of(path)] for path in targets}
    return get_peft_model(network, LoraConfig(r=8, lora_alpha=16, target_modules=targets, rank_pattern=ranks))


def _images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def _denoised(model: Any) -> Tensor:
    with torch.no_grad():
        return denoise(model, _images(), SIGMA, sigma_data=0.5)


def test_ranks_go_by_stage_and_every_target_has_its_own(make_network: Make) -> None:
    model = _adapted(make_network())
    found = {path: module.r["default"] for path, module in model.named_modules() if hasattr(module, "lora_A")}
    assert len(found) == 45
    assert all(rank == RANKS[stage_of(path)] for path, rank in found.items())
    assert set(found.values()) == set(RANKS)


def test_lora_is_the_identity_while_b_is_zero(make_network: Make) -> None:
    network = make_network()
    before = _denoised(network)
    assert torch.equal(_denoised(_adapted(network)), before)


def test_fusing_lora_leaves_the_answers_as_they_were(make_network: Make) -> None:
    network = make_network()
    before = _denoised(network)
    model = _adapted(network)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wanted = _denoised(model)
    assert (wanted - before).abs().max() > 0.05
    fused = model.merge_and_unload()
    assert isinstance(fused, DiffiT)
    assert not [name for name, _ in fused.named_parameters() if "lora" in name]
    torch.testing.assert_close(_denoised(fused), wanted, atol=1e-5, rtol=0.0)


def test_the_loss_trains_the_adapter_and_nothing_else(make_network: Make) -> None:
    model = _adapted(make_network())
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    losses(model, _images(), SIGMA, noise, sigma_data=0.5).mean().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(trained) == 90
