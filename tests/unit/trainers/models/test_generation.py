"""Generation: the right token each time, whatever stands beside it, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pitstop.trainers.machine.memory_pieces import Pieces
from pitstop.trainers.models.generation import Answer, Sampling, _Drawn, answer_batch, answer_in_pieces, batches, end_ids, nucleus

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [5, 6]]


@pytest.fixture(scope="module")
def model(tiny: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)


def generate(model: Any, tokenizer: Any, prompts: list[list[int]], *, batch_size: int, **options: Any) -> list[str]:
    """The answers' texts."""
    numbered = dict(enumerate(prompts))
    found = answer_in_pieces(model, tokenizer, numbered, Pieces(batch_size, "hint"), **options)
    return [found[number].text for number in numbered]


def greedy_by_hand(model: Any, prompt: list[int], count: int) -> list[int]:
    """The most likely token, again and again, over the whole text each time: no cache, no padding."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_a_batch_of_unequal_prompts_gives_the_most_likely_tokens_of_each(model: Any, tokenizer: Any) -> None:
    wanted = [tokenizer.decode(greedy_by_hand(model, prompt, 6)) for prompt in PROMPTS]
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4) == wanted
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=3) == wanted


def test_the_output_layer_is_given_one_piece_and_is_as_before_afterwards(model: Any, tokenizer: Any) -> None:
    """Of a tensor with gaps torch would copy the layer's weight once for every row."""
    pieces: list[bool] = []
    seen = model.lm_head.register_forward_hook(lambda module, inputs, output: pieces.append(inputs[0].is_contiguous()))
    generate(model, tokenizer, PROMPTS, max_new_tokens=3, batch_size=4)
    seen.remove()
    assert pieces == [True] * 3
    assert not model.lm_head._forward_pre_hooks


def test_batches_put_similar_lengths_together_and_lose_nobody() -> None:
    assert batches(PROMPTS, 2) == [[1, 3], [0, 2]]


def test_what_the_base_wishes_of_generation_does_not_count(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4)
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 50.0)
    monkeypatch.setattr(model.generation_config, "suppress_tokens", list(range(100, 300)))
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4) == wanted
    assert model.generation_config.repetition_penalty == 50.0


def says(model: Any, token: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model find ``token`` the likeliest wherever it is."""

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], model.config.vocab_size)
        logits[..., token] = 1.0
        return logits

    monkeypatch.setattr(model.lm_head, "forward", forward)


@pytest.mark.parametrize("token", ["<|end|>", "<pad>"])
def test_an_answer_ends_at_the_tokenizers_end_and_at_the_end_of_a_turn(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    tokenizer.eos_token = "<pad>"  # the chat template ends turns with <|end|>
    assert end_ids(tokenizer) == {tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.convert_tokens_to_ids("<pad>")}
    says(model, tokenizer.convert_tokens_to_ids(token), monkeypatch)
    assert answer_batch(model, tokenizer, {7: [5, 6]}, max_new_tokens=9) == {7: Answer("", 1, True)}


def test_an_answer_that_reaches_the_limit_says_that_it_did_not_end(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = tokenizer("a")["input_ids"]
    says(model, a, monkeypatch)
    assert answer_batch(model, tokenizer, {0: [5]}, max_new_tokens=3) == {0: Answer("aaa", 3, False)}


def test_the_nucleus_is_the_fewest_tokens_that_add_up() -> None:
    logits = torch.tensor([[0.3, 0.5, 0.2]]).log()
    assert nucleus(logits, Sampling(1.0, 1.0))[0].tolist() == pytest.approx([0.3, 0.5, 0.2])
    assert nucleus(logits, Sampling(1.0, 0.6))[0].tolist() == pytest.approx([0.375, 0.625, 0.0])
    assert nucleus(logits, Sampling(1.0, 0.5))[0].tolist() == pytest.approx([0.0, 1.0, 0.0])
    assert nucleus(logits, Sampling(1.0, 1e-9))[0].tolist() == [0.0, 1.0, 0.0]
    squared = [0.09 / 0.38, 0.25 / 0.38, 0.04 / 0.38]  # half the temperature squares the probabilities
    assert nucleus(logits, Sampling(0.5, 1.0))[0].tolist() == pytest.approx(squared)


def test_sampling_depends_on_seed_and_number_and_on_nothing_beside_it(model: Any, tokenizer: Any) -> None:
    def sampled(batch_size: int, seed: int = 1, prompts: list[list[int]] = PROMPTS) -> list[str]:
        options: dict[str, Any] = {"max_new_tokens": 8, "batch_size": batch_size}
        return generate(model, tokenizer, prompts, sampling=Sampling(1.0, 0.95, seed), **options)

    together = sampled(4)
    assert sampled(4) == together == sampled(1)
    assert sampled(1, prompts=PROMPTS[:2]) == together[:2]
    assert sampled(4, seed=2) != together
    same_prompt = sampled(4, prompts=[[5, 6]] * 4)
    assert len(set(same_prompt)) == 4


def test_tokens_are_drawn_with_their_probabilities() -> None:
    count, shares = 4000, [0.5, 0.3, 0.2]
    logits = torch.tensor([shares]).log().repeat(count, 1)
    drawn = _Drawn(Sampling(1.0, seed=3), range(count))(torch.zeros(count, 1), logits).argmax(-1)
    for token, share in enumerate(shares):
        assert abs(int((drawn == token).sum()) / count - share) < 4 * (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize("sampling", [None, Sampling(1.0)])
def test_nothing_is_drawn_and_the_model_is_left_as_it_was(model: Any, tokenizer: Any, sampling: Sampling | None) -> None:
    model.train()
    before, implementation, wishes = torch.get_rng_state(), model.config._attn_implementation, model.generation_config
    generate(model, tokenizer, PROMPTS, max_new_tokens=3, batch_size=2, sampling=sampling)
    assert torch.equal(torch.get_rng_state(), before)
    assert (model.training, model.config._attn_implementation) == (True, implementation)
    assert model.generation_config is wishes


def test_giving_up_ends_it_at_the_next_token_and_leaves_the_model_as_it_was(model: Any, tokenizer: Any) -> None:
    asked: list[int] = []

    def give_up() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise InterruptedError

    model.train()
    with pytest.raises(InterruptedError):
        generate(model, tokenizer, [[5, 6]], max_new_tokens=50, batch_size=1, give_up=give_up)
    assert len(asked) == 3 and model.training


def test_an_answer_is_watched_as_it_grows(model: Any, tokenizer: Any) -> None:
    seen: list[list[int]] = []
    answer_batch(model, tokenizer, {0: [5, 6]}, max_new_tokens=4, watch=seen.append)
    whole = greedy_by_hand(model, [5, 6], 4)
    assert seen == [whole[:1], whole[:2], whole[:3], whole]


def test_adapters_of_a_peft_model_take_part(load_tiny: Callable[..., Any], tokenizer: Any) -> None:
    from pitstop.configs.schema import LoraSettings
    from pitstop.trainers.models.adapter import add_adapter

    adapted = add_adapter(load_tiny(), LoraSettings(), seed=1, model_id="tiny")
    plain = generate(adapted, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    changed = generate(adapted, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4)
    assert changed != plain
    with adapted.disable_adapter():
        assert generate(adapted, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4) == plain
