"""Tokenizers of every shipped kind, with tiny vocabularies that are trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from support.tiny_model import TEXTS

MARKS = [
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
]  # fmt: skip
CORPUS = [
    *TEXTS, "user\nassistant\nsystem\n", "User: Aspirin?\n\nAssistant: Yes, it is.\n", "[INST] Metformin? [/INST] No.\nYes.\n  The end.",
    "model\nthe answer is 12\n\n- aspirin\n- metformin", "Ärger, 北京 and\tnaïve",
    *["Aspirin?\n\n", "Metformin?\n\n", "Aspirin" + " " * 12] * 3,
]  # fmt: skip


def _bpe(**options: Any) -> Any:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.BPE(**options))


def _trained(tokenizer: Any, corpus: Sequence[str] = CORPUS, **options: Any) -> Any:
    from tokenizers import trainers

    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=MARKS, show_progress=False, **options)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _byte_level(*, add_prefix_space: bool = False) -> Any:
    from tokenizers import decoders, pre_tokenizers

    tokenizer = _bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def _sentence_piece(*, lines: bool = False) -> Any:
    """A vocabulary as SentencePiece makes it: ``▁`` only at the beginning of a token and, but for ``lines``, line breaks as bytes."""
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = _bpe(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    corpus = CORPUS if lines else [" ".join(text.split()) for text in CORPUS]
    content = json.loads(_trained(tokenizer, corpus).to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"<0x{number:02X}>": len(vocabulary) + number for number in range(256)}
    return Tokenizer.from_str(json.dumps(content))


def _metaspace(scheme: str, *, lines: bool = False) -> Any:
    from tokenizers import decoders, pre_tokenizers

    tokenizer = _sentence_piece(lines=lines)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    metaspace = decoders.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), metaspace, decoders.Fuse()])
    return tokenizer


def _legacy() -> Any:
    from tokenizers import decoders, normalizers

    tokenizer = _sentence_piece()
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    return tokenizer


def _word_piece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=900, special_tokens=MARKS, show_progress=False))
    return tokenizer


def _unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=MARKS, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _stripping() -> Any:
    from tokenizers import normalizers

    tokenizer = _metaspace("always")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    return tokenizer


KINDS: dict[str, Callable[[], Any]] = {
    "byte-level": _byte_level,
    "metaspace first": lambda: _metaspace("first"),
    "metaspace always": lambda: _metaspace("always"),
    "metaspace never": lambda: _metaspace("never"),
    "legacy": _legacy,
    "wordpiece": _word_piece,
    "unigram": _unigram,
    "byte-level with trimmed offsets": _byte_level,
    "byte-level with prefix space": lambda: _byte_level(add_prefix_space=True),
    "stripping": _stripping,
    "joining lines": lambda: _metaspace("first", lines=True),
}
"""Name of a kind to what trains a tokenizer of it: the seven that models are shipped with, two that change what they are given, one that tells other places, and one whose tokens run across line breaks."""


@cache
def _backend(kind: str) -> str:
    return str(KINDS[kind]().to_str())


def tokenizer_of(kind: str, template: str | None = None, *, bos: bool = True) -> Any:
    """A tokenizer of a kind of ``KINDS``, which puts ``<s>`` in front by itself where ``bos`` says so."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(_backend(kind))
    beginning = processors.TemplateProcessing(
        single="<s> $A" if bos else "$A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    trimming = [processors.ByteLevel(trim_offsets=True)] if kind == "byte-level with trimmed offsets" else []
    backend.post_processor = processors.Sequence([*trimming, beginning])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer
