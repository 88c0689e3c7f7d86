"""``.env.example`` out of the schema: ``python -m pitstop.configs.env_example [FILE]`` writes it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pitstop.configs.leaves import Leaf, leaves
from pitstop.configs.schema import Settings
from pitstop.configs.sources import PREFIX
from pitstop.configs.values import describe

_WIDTH = 110

_HEAD = """\
# Settings of Pitstop. Copy this file to .env and uncomment what you want to change:
#
#     cp .env.example .env
#
# Every line shows the default. Flags and the process environment beat this file; this file beats --config files.
# 'none' stands for "not set". PITSTOP_<NAME> is accepted for each name and wins over the bare one.
# Variables of other tools (HF_HOME, WANDB_MODE, KAGGLE_KEY, …) may stand here too; they are passed on. What looks like a slip is refused.
# Generated from the schema by: python -m pitstop.configs.env_example
"""

# Where the default is "not set", an example of what to write says more than 'none'.
_EXAMPLES = {
    "model.id": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "model.from_run": "base_training/1@best",
    "data.train": "data/train.jsonl",
    "data.eval": "data/held_out.jsonl",
    "naming.experiment_name": "high-lr-test",
    "naming.custom_id": "experiment-v1",
    "hub.username": "your-username",
    "hub.token": "hf_...",
    "hub.repo": "your-username/medical-ner",
}

# These are unset in the schema because one follows from the other; this is what they come to.
_RESOLVED = {"quantization.load_in_4bit": "true", "training.method": "qlora"}


def render() -> str:
    """The text of ``.env.example``: each setting commented out, with its meaning, range and default."""
    return "\n".join([_HEAD.rstrip("\n"), *_body()]) + "\n"


def name_in_file(leaf: Leaf) -> str:
    """How a setting is written in a ``.env``: bare where the bare name is read, else with the prefix."""
    return leaf.env if leaf.documented else PREFIX + leaf.env


def value_in_file(leaf: Leaf) -> str:
    """The default as text; for a setting that is unset by default, 'none' or an example."""
    if leaf.path in _EXAMPLES:
        return _EXAMPLES[leaf.path]
    if leaf.path in _RESOLVED:
        return _RESOLVED[leaf.path]
    if leaf.default is None:
        return "none"
    if isinstance(leaf.default, bool):
        return str(leaf.default).lower()
    if isinstance(leaf.default, list):
        return ",".join(leaf.default)
    text = str(leaf.default)  # quoted where the shell would read more than one word; people write 5e-5, not 5e-05
    return f'"{text}"' if " " in text else text.replace("e-0", "e-")


def _body() -> Iterator[str]:
    group = None
    for leaf in leaves():
        if leaf.group != group:
            group = leaf.group
            yield ""
            yield f"# --- {group}: {_group_meaning(leaf)}"
        yield ""
        takes = "" if leaf.kind in ("str", "secret", "list") else f" Takes {describe(leaf)}."
        comment = f"{leaf.help}{takes}{' Not set by default.' if leaf.path in _EXAMPLES else ''}"
        yield from textwrap.wrap(comment, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        yield f"# {name_in_file(leaf)}={value_in_file(leaf)}"


def _group_meaning(leaf: Leaf) -> str:
    """The docstring of the group that holds the setting."""
    group: object = Settings()
    for part in leaf.path.split(".")[:-1]:
        group = getattr(group, part)
    return (group.__doc__ or "").strip().partition("\n")[0]


def main(arguments: list[str]) -> int:
    """Write the file (``.env.example`` of the working directory unless another is named)."""
    path = Path(arguments[0]) if arguments else Path(".env.example")
    path.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
