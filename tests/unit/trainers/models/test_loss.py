"""However examples are laid into tensors, each supervised token has the loss that plain transformers gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pitstop.trainers.data.batch import flat_batch, padded_batch
from pitstop.trainers.data.example import Example
from pitstop.trainers.models.loss import takes_logits_to_keep, token_losses
from support.plain_losses import plain_losses

CPU = torch.device("cpu")
LENGTHS = [7, 12, 2, 20, 9]
Examples = Callable[..., list[Example]]


# Losses ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_positions", [True, False])
@pytest.mark.parametrize("layout", ["packed", "one by one", "padded"])
def test_token_losses_are_those_of_plain_transformers(
    tiny: Path, load_tiny: Callable[..., Any], make_examples: Examples, layout: str, keep_positions: bool
) -> None:
    examples = make_examples(LENGTHS)
    model = load_tiny().eval()
    if layout == "packed":
        batches = [flat_batch(examples, CPU, flash=False)]
    elif layout == "one by one":
        batches = [flat_batch([example], CPU, flash=False) for example in examples]
    else:
        model.set_attn_implementation("sdpa")
        batches = [padded_batch(examples, CPU, pad_id=2)]
    with torch.no_grad():
        parts = [token_losses(model, batch, keep_positions=keep_positions) for batch in batches]
    losses, hits = plain_losses(tiny, examples)
    assert torch.cat([part.per_unit for part in parts]).tolist() == pytest.approx(losses, abs=2e-5)
    assert torch.cat([part.correct for part in parts]).tolist() == hits


def test_logits_are_computed_at_the_supervised_positions_only(load_tiny: Callable[..., Any], make_examples: Examples) -> None:
    model = load_tiny().eval()
    batch = flat_batch(make_examples(LENGTHS), CPU, flash=False)
    seen: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda module, arguments, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        few = token_losses(model, batch, keep_positions=True)
        all_of_them = token_losses(model, batch, keep_positions=False)
    assert [shape[1] for shape in seen] == [len(batch.targets), sum(LENGTHS)]
    torch.testing.assert_close(few.per_unit, all_of_them.per_unit)


def test_losses_are_float32_and_hits_are_counted_by_hand() -> None:
    class Constant(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
            class Output:
                logits = torch.tensor([[[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]], dtype=torch.bfloat16)

            return Output()

    batch = flat_batch([Example(np.array([1, 1, 1], dtype=np.int32), np.array([False, True, True]))], CPU, flash=False)
    losses = token_losses(Constant(), batch, keep_positions=False)
    assert losses.per_unit.dtype == torch.float32
    assert losses.per_unit.tolist() == pytest.approx([np.log(1 + np.exp(-1.0)), np.log(1 + np.exp(2.0))], rel=1e-6)
    assert losses.correct.tolist() == [True, False]
    assert not takes_logits_to_keep(Constant())


def test_llama_can_be_told_where_to_compute_logits(load_tiny: Callable[..., Any]) -> None:
    assert takes_logits_to_keep(load_tiny())


def test_gradients_of_a_pack_are_those_of_its_documents(load_tiny: Callable[..., Any], make_examples: Examples) -> None:
    examples = make_examples(LENGTHS)
    model = load_tiny().train().requires_grad_(True)
    token_losses(model, flat_batch(examples, CPU, flash=False), keep_positions=True).per_unit.sum().backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for example in examples:
        token_losses(model, flat_batch([example], CPU, flash=False), keep_positions=True).per_unit.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)
