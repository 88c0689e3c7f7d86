"""The tokenizer that lies beside a model; it needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pitstop.configs.errors import ModelError, first_line
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.foreign_code import needs_code


def load_tokenizer(path: Path) -> Any:
    """The model's tokenizer. Raises ``ModelError`` where there is none or it has no end-of-sequence token."""
    from transformers import AutoTokenizer

    with quiet_libraries():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the parser of tokenizer.json raises no more special ones
            if "trust_remote_code" in str(error):
                raise needs_code(path, "auto_map in tokenizer_config.json") from error
            raise ModelError(
                f"Cannot load a tokenizer from {path}: {first_line(error)}",
                hint="Copy or download again the files of the tokenizer: tokenizer.json and tokenizer_config.json.",
            ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer in {path} has no end-of-sequence token, so a model could not learn to stop.")
    return tokenizer
