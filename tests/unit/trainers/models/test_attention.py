"""Attention inside the documents of a packed row, and which architectures keep them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pitstop.trainers.data.batch import flat_batch, padded_batch
from pitstop.trainers.data.example import Example
from pitstop.trainers.models.attention import PackingUnsupported, keeps_documents_apart, packed_attention
from pitstop.trainers.models.loss import takes_logits_to_keep, token_losses
from support.plain_losses import plain_losses

CPU = torch.device("cpu")


LENGTHS = [7, 12, 2, 20, 9]


Examples = Callable[..., list[Example]]


def _dense_reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], window: int | None, scale: float
) -> torch.Tensor:
    """Softmax attention written out, with one mask over the whole row. Returns ``(1, tokens, heads, head_dim)``."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    position = torch.arange(sum(lengths))
    allowed = (document[:, None] == document[None]) & (position[:, None] >= position[None])
    if window is not None:
        allowed &= position[:, None] - position[None] < window
    scores = (query @ key.transpose(-1, -2) * scale).masked_fill(~allowed, float("-inf"))
    return (scores.softmax(dim=-1) @ value).transpose(1, 2)


COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}


MAMBA = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}


HYBRID = {**COMMON, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}


@pytest.fixture
def load_architecture(tmp_path: Path, load_tiny: Callable[..., Any]) -> Callable[..., tuple[Any, Path]]:
    """Saves a tiny model of an architecture and loads it as training does."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def load(model_type: str, options: dict[str, Any], **how: Any) -> tuple[Any, Path]:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **options)).save_pretrained(tmp_path / model_type)
        return load_tiny(tmp_path / model_type, **how), tmp_path / model_type

    return load


class _Positional(torch.nn.Module):
    """Sees no other token, but adds a position that it counts itself: position ids are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = torch.nn.Embedding(16, 8), torch.nn.Embedding(16, 8)

    class config:
        @staticmethod
        def get_text_config() -> object:
            return object()

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.tokens

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        class Output:
            logits = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))[None]

        return Output()


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 1, 3, 8])
@pytest.mark.parametrize("lengths", [(5, 8, 1, 3), (17,), (1, 1, 1)])
def test_packed_attention_and_its_gradients_are_those_of_a_dense_mask(
    lengths: tuple[int, ...], window: int | None, kv_heads: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 4, sum(lengths), 8), (1, kv_heads, sum(lengths), 8), (1, kv_heads, sum(lengths), 8)]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    output, weights = packed_attention(
        torch.nn.Module(), *tensors, scaling=0.3, sliding_window=window, doc_lengths=lengths, softcap=None, s_aux=None
    )
    expected = _dense_reference(*tensors, lengths, window, 0.3)
    assert weights is None and output.shape == (1, sum(lengths), 4, 8) and output.is_contiguous()
    torch.testing.assert_close(output, expected)
    upstream = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(result, tensors, upstream) for result in (output, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_without_a_scale_it_is_that_of_scaled_dot_product_attention() -> None:
    query, key, value = torch.randn(3, 1, 2, 6, 8, generator=torch.Generator().manual_seed(0)).unbind()
    output, _ = packed_attention(torch.nn.Module(), query, key, value, doc_lengths=(6,))
    torch.testing.assert_close(output, F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2))


@pytest.mark.parametrize("extra", [{"softcap": 50.0}, {"s_aux": torch.zeros(1)}, {"position_bias": torch.zeros(1)}])
def test_what_it_cannot_do_is_refused(extra: dict[str, Any]) -> None:
    tensor = torch.zeros(1, 1, 3, 4)
    with pytest.raises(PackingUnsupported, match=next(iter(extra))):
        packed_attention(torch.nn.Module(), tensor, tensor, tensor, doc_lengths=(3,), **extra)
    with pytest.raises(PackingUnsupported, match="does not hand"):
        packed_attention(torch.nn.Module(), tensor, tensor, tensor)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", COMMON),
        ("mistral", {**COMMON, "sliding_window": 3}),
        ("qwen2", COMMON),
        ("gemma3_text", {**COMMON, "head_dim": 8, "sliding_window": 4}),
        ("gpt2", GPT2),  # absolute positions, which start anew with each document
        ("gptj", {**GPT2, "rotary_dim": 4}),  # knows no attention implementations but its own
    ],
)
def test_documents_of_these_stay_apart_and_have_their_own_losses(
    load_architecture: Callable[..., Any], make_examples: Examples, model_type: str, options: dict[str, Any]
) -> None:
    model, path = load_architecture(model_type, options)
    assert keeps_documents_apart(model, CPU)
    examples = make_examples(LENGTHS, vocabulary=64)
    with torch.no_grad():
        batch = flat_batch(examples, CPU, flash=False)
        packed = token_losses(model.eval(), batch, keep_positions=takes_logits_to_keep(model))
    assert packed.per_unit.tolist() == pytest.approx(plain_losses(path, examples)[0], abs=2e-5)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("mamba", MAMBA),  # its state runs through the row
        ("falcon_h1", HYBRID),  # so does that of half of its layers, with little weight at first
        ("bloom", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}),  # builds a mask of its own
        ("mpt", {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),  # needs a mask
        ("gemma2", {**COMMON, "head_dim": 8}),  # caps its scores
        ("llama4_text", {**COMMON, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 32}),  # attends by chunks
    ],
)
def test_documents_of_these_do_not(load_architecture: Callable[..., Any], model_type: str, options: dict[str, Any]) -> None:
    model, _ = load_architecture(model_type, options)
    assert not keeps_documents_apart(model, CPU)


@pytest.mark.parametrize(("model_type", "options"), [("mamba", MAMBA), ("falcon_h1", HYBRID)])
def test_their_padded_rows_have_the_losses_of_plain_transformers(
    load_architecture: Callable[..., Any], make_examples: Examples, model_type: str, options: dict[str, Any]
) -> None:
    model, path = load_architecture(model_type, options)
    model.set_attn_implementation("eager")
    examples = make_examples(LENGTHS, vocabulary=64)
    with torch.no_grad():
        batch = padded_batch(examples, CPU, pad_id=0)
        padded = token_losses(model.eval(), batch, keep_positions=takes_logits_to_keep(model))
    assert padded.per_unit.tolist() == pytest.approx(plain_losses(path, examples)[0], abs=2e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("model_type", "options"), [("llama", COMMON), ("mamba", MAMBA)])
def test_the_try_leaves_no_trace(
    load_architecture: Callable[..., Any], model_type: str, options: dict[str, Any], training: bool
) -> None:
    model, _ = load_architecture(model_type, options)
    model.train(training)
    before = torch.get_rng_state()
    keeps_documents_apart(model, CPU)
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.get_input_embeddings()._forward_hooks
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("how", [{"compute": torch.bfloat16}, {"compute": torch.bfloat16, "quantised": True}])
def test_documents_of_a_16_bit_or_4_bit_model_stay_apart(load_tiny: Callable[..., Any], how: dict[str, Any]) -> None:
    assert keeps_documents_apart(load_tiny(**how), CPU)


def test_a_model_that_ignores_position_ids_is_found_out() -> None:
    torch.manual_seed(0)
    model = _Positional()
    assert not keeps_documents_apart(model, CPU)
    torch.nn.init.zeros_(model.positions.weight)
    assert keeps_documents_apart(model, CPU)
