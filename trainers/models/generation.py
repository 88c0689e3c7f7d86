"""Generation in batches, greedy or sampled, from the same prompt tokens that training used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from pitstop.trainers.data.chat.renderer import ChatRenderer
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.machine.memory_pieces import Pieces
from pitstop.trainers.models.adapter import bare_model

Tokens = Callable[[Sequence[int]], None]
"""Is given the token ids of an answer so far, each time there is one more."""


@dataclass(frozen=True)
class Sampling:
    """Nucleus sampling (Holtzman et al. 2020): logits are divided by ``temperature``, and of the tokens by falling
    probability the first are taken whose probabilities add up to ``top_p``.

    The answer to a prompt depends on ``seed`` and the prompt's number, not on what is generated beside it.
    """

    temperature: float  # above 0
    top_p: float = 1.0  # above 0, at most 1
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """A generated text without special tokens; ``ended`` says that the model ended it, not the limit on new tokens."""

    text: str
    tokens: int  # new ones, the end token among them
    ended: bool


def batches(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """The prompts' numbers in batches of at most ``batch_size``, those of similar length together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def answer_in_pieces(
    model: Any, tokenizer: Any, prompts: Mapping[int, Sequence[int]], pieces: Pieces, **options: Any
) -> dict[int, Answer]:
    """As ``answer_batch``, with fewer prompts at a time where memory runs out. ``ResourceError`` where it does with one."""
    answers: dict[int, Answer] = {}
    for part in pieces.of(list(prompts), lambda some: answer_batch(model, tokenizer, {i: prompts[i] for i in some}, **options)):
        answers |= part
    return answers


@torch.no_grad()
def answer_batch(
    model: Any,
    tokenizer: Any,
    prompts: dict[int, Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    give_up: Callable[[], None] = lambda: None,
    watch: Tokens | None = None,
) -> dict[int, Answer]:
    """Answers by number to ``prompts`` (token ids by number), generated side by side with a cache of keys and values.

    Rows are padded on the left; each ends at the first of ``end_ids``. No random number is drawn from the generators of torch:
    sampling has its own. ``give_up`` is called at every token and may raise. ``watch`` follows a single prompt's answer.
    """
    from transformers import LogitsProcessorList

    ends = end_ids(tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids, mask = _left_padded(list(prompts.values()), pad)
    width = ids.shape[1]

    def at_token(so_far: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        give_up()
        if watch is not None:
            watch([token for token in so_far[0, width:].tolist() if token not in ends])
        return torch.zeros(len(so_far), dtype=torch.bool, device=so_far.device)

    with answering_mode(model) as base, quiet_libraries():
        output = base.generate(
            input_ids=ids.to(base.device),
            attention_mask=mask.to(base.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=sorted(ends),
            logits_processor=LogitsProcessorList([] if sampling is None else [_Drawn(sampling, list(prompts))]),
            stopping_criteria=_criteria(at_token),
        )
    rows = output[:, width:].tolist()
    return {number: _answer(tokenizer, row, ends) for number, row in zip(prompts, rows, strict=True)}


def _answer(tokenizer: Any, row: Sequence[int], ends: Collection[int]) -> Answer:
    end = next((position for position, token in enumerate(row) if token in ends), None)
    text = tokenizer.decode(row if end is None else row[:end], skip_special_tokens=True)
    return Answer(text, len(row) if end is None else end + 1, end is not None)


def end_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's own, and the one that training puts behind an assistant's turn."""
    return frozenset({int(tokenizer.eos_token_id), ChatRenderer(tokenizer).end_id})


def _criteria(at_token: Callable[..., torch.Tensor]) -> Any:
    from transformers import StoppingCriteria, StoppingCriteriaList

    class AtToken(StoppingCriteria):
        """Called behind every token; never stops a row by itself."""

        def __call__(self, *arguments: Any, **named: Any) -> torch.Tensor:
            return at_token(*arguments, **named)

    return StoppingCriteriaList([AtToken()])


class _Drawn:
    """Leaves of each row's logits only the token that was drawn, so that the most likely one is that."""

    def __init__(self, sampling: Sampling, numbers: Sequence[int]) -> None:
        self.sampling = sampling
        self.generators = [torch.Generator().manual_seed((sampling.seed * 1_000_003 + number) % 2**63) for number in numbers]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores``: logits, ``(rows, vocabulary)``."""
        probabilities = nucleus(scores.float().cpu(), self.sampling)
        drawn = [
            int(torch.multinomial(row, 1, generator=generator))
            for row, generator in zip(probabilities, self.generators, strict=True)
        ]
        chosen = torch.full_like(scores, -torch.inf)
        chosen[torch.arange(len(drawn)), drawn] = 0.0
        return chosen


def nucleus(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What is drawn from: probabilities of ``logits``' shape ``(rows, vocabulary)``, zero outside the nucleus."""
    probabilities = functional.softmax(logits.double() / sampling.temperature, dim=-1)
    ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
    likelier = ordered.cumsum(dim=-1) - ordered  # what more likely tokens add up to
    ordered[likelier >= sampling.top_p] = 0.0
    truncated = torch.zeros_like(probabilities).scatter(-1, places, ordered)
    return truncated / truncated.sum(dim=-1, keepdim=True)


def _left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 of shape ``(rows, longest)``."""
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def _in_one_piece(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The last position of each row is no contiguous tensor, for which a linear layer copies its weight once for every row."""
    return (inputs[0].contiguous(), *inputs[1:])


@contextlib.contextmanager
def answering_mode(model: Any) -> Iterator[Any]:
    """The base with what is injected into it, in evaluation mode and with an attention that knows padding and the cache.

    Its author's generation_config.json (a penalty on repetition, say) does not count meanwhile. All comes back afterwards.
    """
    from transformers import GenerationConfig

    base = bare_model(model)
    implementation, was_training, wishes = base.config._attn_implementation, model.training, base.generation_config
    base.set_attn_implementation("sdpa" if getattr(base, "_supports_sdpa", False) else "eager")
    base.generation_config = GenerationConfig()
    hook = base.get_output_embeddings().register_forward_pre_hook(_in_one_piece)
    model.eval()
    try:
        yield base
    finally:
        hook.remove()
        base.set_attn_implementation(implementation)
        base.generation_config = wishes
        model.train(was_training)
