"""What a language model can take: token ids that its embeddings have rows for, and positions that it knows.

Beyond either, training would end in an IndexError of torch, or on a GPU in an assertion that names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pitstop.configs.errors import ModelError, SettingsError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.dataset import Dataset, Sequences
from pitstop.trainers.data.example import Example
from pitstop.trainers.models.fit import Tell
from pitstop.trainers.models.source import ModelSource

UNUSABLE = "{count} [token|tokens] of the tokenizer [has|have] no row in the embeddings of {subject}; no record may use [it|them]"
LONG = "{count} [record is|records are] longer than the positions that {subject} was trained with"

_POSITIONS = re.compile(r"^wpe$|pos")


@dataclass(frozen=True)
class ModelLimits:
    """Token ids are below ``rows``, and the tokenizer has ids below ``tokens``; None for embeddings that are no table.

    ``positions`` is what the configuration names, None where it names none; ``learnt``: each has a row of its own in a table, so that
    none comes after the last.
    """

    source: ModelSource
    tokenizer: Any
    rows: int | None
    tokens: int
    positions: int | None
    learnt: bool

    @classmethod
    def of(cls, model: Any, tokenizer: Any, source: ModelSource) -> ModelLimits:
        """Those of ``model``, which is from ``source``, bare, and may be on the device ``meta``."""
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        positions = positions if isinstance(positions, int) and positions > 0 else None
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
        learnt = positions is not None and any(size == positions for size in _tables(model))
        added = getattr(tokenizer, "added_tokens_decoder", {})  # by number: there may be gaps
        tokens = max([len(tokenizer), *(number + 1 for number in added)])
        return cls(source, tokenizer, rows, tokens, positions, learnt)

    def check_tokenizer(self, tell: Tell) -> None:
        """Raises ``ModelError`` where a token that every record or batch needs has no row; ``tell`` hears of others that have none."""
        if self.rows is None or self.tokens <= self.rows:
            return
        if self.source.config is not None:
            raise ModelError(
                f"{self.source.config}: vocab_size is {self.rows:,}, the tokenizer has {self.tokens:,} tokens.",
                hint=f"Set vocab_size to {self.tokens} or more.",
            )
        for name in ("eos_token", "pad_token", "bos_token"):
            number = getattr(self.tokenizer, f"{name}_id")
            if number is not None and number >= self.rows:
                raise self._too_many(f"{getattr(self.tokenizer, name)} ({name}) has number {number:,}")
        places = ", ".join(self._word(number) for number in range(self.rows, min(self.tokens, self.rows + 3)))
        tell(Notice(UNUSABLE, subject=self.source.model_id, count=self.tokens - self.rows, place=places, loss=True))

    def check_data(self, data: Sequences, name: str, max_length: int, tell: Tell, *, hint: str = "") -> None:
        """Raises ``ModelError`` for a record with a token, ``SettingsError`` for one with a position, that the model does not have.

        ``tell`` hears of records longer than the positions that a model was trained with which can go on counting. ``name`` says
        which data, ``hint`` what to do where ``max_length`` cannot be set.
        """
        if not isinstance(data, Dataset):
            return
        if self.rows is not None and self.tokens > self.rows:
            for example in data.examples.scan():
                self.check_ids(example.input_ids, name)
        lengths = data.examples.lengths
        if self.positions is None or not len(lengths) or lengths.max() <= self.positions:
            return
        long = int((lengths > self.positions).sum())
        if not self.learnt:
            remedy = f"The longest has {int(lengths.max()):,} tokens, {self.positions:,} were trained."
            tell(Notice(LONG, subject=self.source.model_id, count=long, place=name, remedy=remedy, loss=True))
            return
        raise SettingsError(
            f"MAX_LENGTH = {max_length:,} is more than the {self.positions:,} positions that {self.source.model_id} has learnt, and {name} "
            f"has {long:,} longer {'record' if long == 1 else 'records'}, up to {int(lengths.max()):,} tokens.",
            hint=hint or f"Give --max-length {self.positions}: longer records are then left out, and counted.",
        )

    def check_answers(self, examples: Sequence[Example], max_new_tokens: int) -> None:
        """Raises ``SettingsError`` where an answer to the prompt of one of ``examples`` could go beyond the last position."""
        longest = max((len(example.prompt) for example in examples), default=0)
        if self.learnt and self.positions is not None and longest + max_new_tokens > self.positions and examples:
            raise SettingsError(
                f"EVAL_MAX_NEW_TOKENS = {max_new_tokens:,} and a prompt of the evaluation data of {longest:,} tokens are more than the "
                f"{self.positions:,} positions that {self.source.model_id} has learnt.",
                hint=f"Give --eval-max-new-tokens {self.positions - longest}."
                if longest < self.positions
                else "Give a smaller --max-length, so that longer records are left out.",
            )

    def check_ids(self, ids: Sequence[int] | np.ndarray, place: str) -> None:
        """Raises ``ModelError`` where one of ``ids`` has no row; ``place`` says whose they are."""
        largest = max(map(int, ids), default=0) if not isinstance(ids, np.ndarray) else int(ids.max(initial=0))
        if self.rows is not None and largest >= self.rows:
            raise self._too_many(f"{self._word(largest)}, which occurs in {place}, has number {largest:,}")

    def _too_many(self, case: str) -> ModelError:
        return ModelError(
            f"The tokenizer of {self.source.model_id} has {self.tokens:,} tokens and the model's embeddings {self.rows:,} rows: {case}.",
            hint="Take model and tokenizer from the same place, or a model whose embeddings were resized for the added tokens.",
        )

    def _word(self, number: int) -> str:
        return repr(self.tokenizer.convert_ids_to_tokens(number))


def _tables(model: nn.Module) -> Iterable[int]:
    """The rows of each table of positions in ``model``: learnt, or computed once and looked up."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and _POSITIONS.search(path.rpartition(".")[2]):
            yield module.num_embeddings - int(getattr(module, "offset", 0))  # OPT's first rows are for no position
            yield module.num_embeddings
    for path, buffer in model.named_buffers():
        if buffer.dim() == 2 and _POSITIONS.search(path.rpartition(".")[2]):
            yield buffer.shape[0]
