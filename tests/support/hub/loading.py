"""What anybody does with a pushed run: loading the adapter at the top and one of a checkpoint with PEFT. Run as a program."""

from __future__ import annotations

import sys
from pathlib import Path

from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def main(base: str, repo: str, *pairs: str) -> None:
    """``pairs``: a subfolder (``.`` for the top) and the file of weights that its adapter must have, again and again."""
    for subfolder, file in zip(pairs[::2], pairs[1::2], strict=True):
        model = AutoModelForCausalLM.from_pretrained(base)
        named = {} if subfolder == "." else {"subfolder": subfolder}
        loaded = PeftModel.from_pretrained(model, repo, **named).state_dict()
        wanted = load_file(Path(file))
        assert wanted
        for name, tensor in wanted.items():
            found = loaded[name.replace(".weight", ".default.weight")]
            assert found.to(tensor.dtype).equal(tensor), f"{subfolder}: {name} differs"
    sys.stdout.write("equal\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
