"""A causal language model small enough to train in a second, with a real tokenizer and chat template, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TEXTS = [
    "Metformin is used to treat diabetes.",
    "The patient was given aspirin for a headache.",
    "List the chemicals. - aspirin - none user assistant system",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?-_()[]{}'\"",
]


def make_tiny_model(directory: Path, *, chat: bool = True, hidden: int = 64, seed: int = 0, tokenizer: Any = None) -> Path:
    """Save a two-layer Llama with random weights and ``tokenizer``, or a byte-level BPE tokenizer, in ``directory``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fast = tokenizer or _byte_level(chat=chat)
    fast.save_pretrained(directory)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


def _byte_level(*, chat: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|start|>", "<|end|>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<pad>")
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def write_records(path: Path, count: int, *, start: int = 0) -> Path:
    """Prompt/completion records of varying length."""
    drugs = ["aspirin", "metformin", "ibuprofen", "insulin", "heparin"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(start, start + count):
            drug = drugs[number % len(drugs)]
            text = f"Case {number}: the patient took {drug}" + " and rested" * (number % 4) + "."
            file.write(json.dumps({"prompt": text, "completion": f"- {drug}"}) + "\n")
    return path


def write_data(directory: Path, train: int, evaluation: int) -> Path:
    """``train.jsonl`` and ``eval.jsonl`` with so many different records, in a directory that is made if it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    write_records(directory / "train.jsonl", train)
    write_records(directory / "eval.jsonl", evaluation, start=100)
    return directory
