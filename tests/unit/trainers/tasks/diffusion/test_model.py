"""The network: its layout, what reaches its answer, the paths of its modules, and LoRA on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.edm import denoise, losses
from pitstop.trainers.tasks.diffusion.model import DiffiT, sinusoid
from support.image_models import linear_targets, stage_of

Make = Callable[..., DiffiT]
RANKS = (12, 10, 8)
SIGMA = torch.tensor([0.2, 1.0])


def _images(n: int = 2, channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(3))


def _tensors_of(network: DiffiT, x: Tensor, c_noise: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The answer, and the first input and the output of each module by its path."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
            inputs[path], outputs[path] = given[0], answer

        return hook

    handles = [module.register_forward_hook(keep(path)) for path, module in network.named_modules()]
    with torch.no_grad():
        answer = network(x, c_noise)
    for handle in handles:
        handle.remove()
    return answer, inputs, outputs


def test_an_untrained_network_answers_zero() -> None:
    network = DiffiT(DiffiTConfig(image_size=16, widths=(8, 16, 16), heads=2, time_width=16, blocks=1))
    x = _images()
    assert torch.equal(network(x, torch.zeros(2)), torch.zeros_like(x))
    sigma = torch.full((2,), 0.5)
    torch.testing.assert_close(denoise(network, x, sigma, sigma_data=0.5), x / 2)


def test_the_decoder_adds_what_the_encoder_made_at_its_resolution(make_network: Make) -> None:
    network = make_network(blocks=2)
    x = _images()
    answer, inputs, outputs = _tensors_of(network, x, torch.zeros(2))
    assert torch.equal(inputs["encoder.0.0"], outputs["conv_in"])
    for stage in (0, 1):
        assert torch.equal(inputs[f"encoder.{stage}.1"], outputs[f"encoder.{stage}.0"])
        assert torch.equal(inputs[f"down.{stage}"], outputs[f"encoder.{stage}.1"])
        assert torch.equal(inputs[f"encoder.{stage + 1}.0"], outputs[f"down.{stage}"])
        below = outputs["encoder.2.1" if stage == 1 else "decoder.1.1"]
        assert torch.equal(inputs[f"up.{stage}"], below.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        assert torch.equal(inputs[f"decoder.{stage}.0"], outputs[f"up.{stage}"] + outputs[f"encoder.{stage}.1"])
    assert torch.equal(inputs["norm_out"], outputs["decoder.0.1"])
    assert torch.equal(answer, network.conv_out(F.silu(outputs["norm_out"])))


def test_a_residual_cell_adds_the_block_of_a_convolution_of_the_swish_of_a_norm(make_network: Make) -> None:
    cell = make_network().encoder[1][0]
    x, time = torch.randn(2, 16, 8, 8), torch.randn(2, 16)
    groups = x.reshape(2, 4, -1)  # gcd(32, 16/4) groups
    centred = groups - groups.mean(-1, keepdim=True)
    normal = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).reshape_as(x)
    convolved = F.conv2d(normal * torch.sigmoid(normal), cell.conv.weight, cell.conv.bias, padding=1)
    wanted = cell.block(convolved.permute(0, 2, 3, 1), time).permute(0, 3, 1, 2) + x
    torch.testing.assert_close(cell(x, time), wanted, atol=1e-4, rtol=1e-4)


def test_the_sinusoids_by_hand() -> None:
    values = [math.cos(0.5), math.cos(5e-5), math.sin(0.5), math.sin(5e-5)]
    torch.testing.assert_close(sinusoid(torch.tensor([0.5]), 4), torch.tensor([values]))
    assert sinusoid(torch.tensor([0.5], dtype=torch.float64), 4).dtype == torch.float32


def test_the_time_token_is_the_swish_of_an_mlp_of_the_sinusoids(make_network: Make) -> None:
    network = make_network()
    c_noise = torch.tensor([-1.0, 0.7])
    _, _, outputs = _tensors_of(network, _images(), c_noise)
    hidden = sinusoid(c_noise, 16) @ network.time.fc1.weight.T + network.time.fc1.bias
    token = (hidden * torch.sigmoid(hidden)) @ network.time.fc2.weight.T + network.time.fc2.bias
    _, inputs, _ = _tensors_of(network, _images(), c_noise)
    torch.testing.assert_close(inputs["decoder.0.0.block.attention.q_time"], token * torch.sigmoid(token))
    assert outputs["time"].shape == (2, 16)


def test_the_noise_level_changes_the_answer(make_network: Make) -> None:
    network, x = make_network(), _images()
    assert (network(x, torch.zeros(2)) - network(x, torch.ones(2))).abs().max() > 1e-3


def test_an_image_is_answered_alike_whatever_else_is_in_its_batch(make_network: Make) -> None:
    network, x, c_noise = make_network(classes=3), _images(), torch.tensor([-1.0, 0.7])
    labels = torch.tensor([2, 0])
    together = network(x, c_noise, labels)
    for image in (slice(0, 1), slice(1, 2)):
        torch.testing.assert_close(network(x[image], c_noise[image], labels[image]), together[image], atol=1e-5, rtol=1e-4)


def test_labels_change_the_answer_of_a_network_with_classes_only(make_network: Make) -> None:
    x, c_noise = _images(), torch.zeros(2)
    zeros, ones = torch.tensor([0, 0]), torch.tensor([0, 1])
    plain = make_network()
    assert torch.equal(plain(x, c_noise, zeros), plain(x, c_noise, ones))
    assert torch.equal(plain(x, c_noise, zeros), plain(x, c_noise))
    conditional = make_network(classes=2)
    difference = (conditional(x, c_noise, zeros) - conditional(x, c_noise, ones)).abs().amax(dim=(1, 2, 3))
    assert difference[0] == 0
    assert difference[1] > 1e-5
    assert conditional.class_embedding is not None
    assert conditional.class_embedding.weight.shape == (2, 16)
    with pytest.raises(ValueError, match=r"^the network has 2 classes and was given no labels"):
        conditional(x, c_noise)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 16, 16), (1, 3, 16, 8)])
def test_images_of_another_shape_are_refused(make_network: Make, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the network is for \(3, 16, 16\)"):
        make_network()(torch.zeros(shape), torch.zeros(1))


def test_every_weight_is_trained_but_the_time_part_of_the_keys(make_network: Make) -> None:
    network = make_network(classes=2)
    x, labels = _images(), torch.tensor([0, 1])
    losses(network, x, torch.tensor([0.3, 1.0]), torch.randn_like(x), labels, sigma_data=0.5).mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # a bias that is the same for all keys shifts all scores of a query, like the time part
        assert (parameter.grad.abs().max() > 1e-6) != (".k_time." in name or name.endswith("k_space.bias")), name


def test_under_autocast_the_answer_is_near_and_gradients_are_float32(make_network: Make) -> None:
    network, x, sigma = make_network(), _images(), torch.tensor([0.3, 1.0])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    wanted = losses(network, x, sigma, noise, sigma_data=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x, sigma.log() / 4).dtype == torch.bfloat16
        found = losses(network, x, sigma, noise, sigma_data=0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.0)
    assert not torch.equal(found, wanted)
    found.mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in network.parameters())


def test_targets_of_lora_are_the_linear_layers_of_all_blocks(make_network: Make) -> None:
    network = make_network(classes=2, blocks=2)
    layers = [f"attention.{name}" for name in ("q_space", "k_space", "v_space", "q_time", "k_time", "v_time", "out")]
    stages = ["encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1"]
    wanted = {f"{s}.{cell}.block.{layer}" for s in stages for cell in (0, 1) for layer in [*layers, "mlp.fc1", "mlp.fc2"]}
    targets = linear_targets(network)
    assert len(targets) == len(wanted) == 90
    assert set(targets) == wanted


def test_a_path_tells_the_resolution_that_the_module_works_at(make_network: Make) -> None:
    network = make_network()
    _, inputs, _ = _tensors_of(network, _images(), torch.zeros(2))
    seen = set()
    for path in linear_targets(network):
        if ".mlp." in path or path.endswith("_space"):
            assert inputs[path].shape[1:3] == (16 >> stage_of(path),) * 2, path
            seen.add(stage_of(path))
    assert seen == {0, 1, 2}
    assert stage_of("base_model.model.decoder.1.0.block.attention.out.lora_A.default.weight") == 1


@pytest.mark.parametrize("path", ["time.fc1", "conv_in.weight", "down.0.weight", "up.1.weight", "decoder", "my_encoder.1.x"])
def test_what_is_in_no_stage_is_said_to_be(path: str) -> None:
    with pytest.raises(ValueError, match=f"^{path} is in no stage"):
        stage_of(path)


# LoRA -----------------------------------------------------------------------------------------------------------------


def _adapted(network: DiffiT) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = linear_targets(network)
    ranks = {path: RANKS[stage_of(path)] for path in targets}
    return get_peft_model(network, LoraConfig(r=8, lora_alpha=16, target_modules=targets, rank_pattern=ranks))


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
