"""Read settings out of the process environment and a ``.env`` file, remembering where each value stood."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pitstop.configs.env_file import assignments, default_env_file
from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import Leaf, by_env, nearest
from pitstop.configs.secrets import mask, remember

PREFIX = "PITSTOP_"

Kind = Literal["flag", "environment", "env-file", "config", "preset", "default", "run", "base run"]


@dataclass(frozen=True)
class Source:
    """Where a value came from: ``place`` is text for people, such as ``.env line 3 (LORA_RANK)``."""

    kind: Kind
    place: str


DEFAULT = Source("default", "default")
"""The source of a value that no other source has."""


class RawValue(NamedTuple):
    """A value as it was written, not yet converted."""

    value: Any
    source: Source


Layer = dict[str, RawValue]
"""The values of one source by dotted path."""


# Names in a .env that belong to the libraries and tools beneath. They are passed on to them (``apply_foreign``).
_FOREIGN = re.compile(
    r"""(?:HF|HUGGING_?FACE|CUDA|CUDNN|CUBLAS|NVIDIA|HIP|ROCM|ROCR|HSA|WANDB|MLFLOW|TRACKIO|COMET|TENSORBOARD|NCCL|GLOO|UCX|FI
          |TORCH\w*|PYTORCH|TRITON|OMP|MKL|KMP|OPENBLAS|GOMP|TOKENIZERS|TRANSFORMERS|DATASETS|PEFT|SAFETENSORS|DIFFUSERS
          |ACCELERATE|FSDP|DEEPSPEED|BITSANDBYTES|BNB_CUDA|XDG|PYTHON\w*|UV|PIP|VIRTUAL|CONDA|AWS|S3|GCP|GOOGLE|AZURE|SLURM
          |SSL|SSH|GIT|REQUESTS|CURL|LC|JUPYTER|OPENAI|ANTHROPIC|DOCKER|COMPOSE)_\w+
        |(?:https?|all|no|ftp)_proxy|TMPDIR|TMP|TEMP|HOME|PATH|LD_LIBRARY_PATH|LD_PRELOAD|LANG|LANGUAGE|TZ|TERM|NO_COLOR
        |FORCE_COLOR|COLUMNS|BNB_CUDA\w*|PYTHON\w*|MASTER_ADDR|MASTER_PORT""",
    re.VERBOSE,
)
_PROXY = re.compile(r"(?:https?|all|no|ftp)_proxy", re.IGNORECASE)
# BNB_4BIT_… are settings; HF_TOKNE is far more likely a slip of HF_TOKEN than a variable of the Hub client.
_SLIP = 0.85
_ALIKE = 0.8
"""From here on a name that nobody knows is taken for a setting that was misspelt: GITHUB_TOKEN is no HF_TOKEN, LORA_R is LORA_RANK."""

# A launcher gives each process its own; in a file that all of them read they are meant for something else.
_OF_LAUNCHERS = {"RANK": "LORA_RANK", "LOCAL_RANK": "LORA_RANK", "WORLD_SIZE": "NUM_PROCESSES"}


def is_foreign(name: str) -> bool:
    """Whether a name in a ``.env`` is a well-known variable of another tool, such as ``CUDA_VISIBLE_DEVICES``."""
    return bool(_FOREIGN.fullmatch(name) or _PROXY.fullmatch(name))


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Settings in the process environment. ``PITSTOP_X`` beats ``X``; anything else there is none of our business.

    Raises:
        SettingsError: a ``PITSTOP_`` name that is not a setting.
    """
    for name in environ:
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in by_env():
            raise _unknown(name, "the environment")
    layer: Layer = {}
    for leaf in by_env().values():
        for name in accepted_names(leaf):
            if name in environ:
                layer[leaf.path] = RawValue(_noted(leaf, environ[name]), Source("environment", name))
                break
    return layer


def read_env_file(path: Path, environ: Mapping[str, str]) -> Layer:
    """Settings in a ``.env`` file. ``${NAME}`` is filled in from the environment or an earlier line.

    Raises:
        SettingsError: the file cannot be read, a line is not ``NAME=value``, a name stands twice, or a name that is no setting
            resembles one. Any other name is another tool's. No value is ever part of the message.
    """
    layer: Layer = {}
    names = {name: leaf for leaf in by_env().values() for name in accepted_names(leaf)}
    for entry in assignments(path, environ):
        place = f"{path} line {entry.line}"
        leaf = names.get(entry.name)
        if leaf is None:
            _check_foreign(entry.name, place)
            continue
        # PITSTOP_X beats X here as in the environment, whichever line comes first.
        if leaf.path in layer and not entry.name.startswith(PREFIX):
            continue
        layer[leaf.path] = RawValue(_noted(leaf, entry.value), Source("env-file", f"{place} ({entry.name})"))
    return layer


def unknown_names(env_file: Path | None = None) -> list[str]:
    """Names in the ``.env`` that are neither settings nor well-known variables of other tools. ``SettingsError`` as ``apply_foreign``."""
    path = env_file or default_env_file()
    names = [entry.name for entry in assignments(path, os.environ)] if path else []
    return [name for name in names if name not in _ours() and not is_foreign(name)]


def apply_foreign(env_file: Path | None = None) -> list[str]:
    """Export all of the ``.env`` but the settings to this process, for the libraries and tools that read it.

    What the environment already has stays as it is. Returns the names that were set.

    Raises:
        SettingsError: the file cannot be read or parsed.
    """
    path = env_file or default_env_file()
    if path is None:
        return []
    applied = []
    for entry in assignments(path, os.environ):
        if entry.name not in _ours() and entry.name not in os.environ:
            _check_foreign(entry.name, f"{path} line {entry.line}")
            os.environ[entry.name] = entry.value
            applied.append(entry.name)
    return applied


@cache
def _ours() -> frozenset[str]:
    return frozenset(name for leaf in by_env().values() for name in accepted_names(leaf))


def accepted_names(leaf: Leaf) -> tuple[str, ...]:
    """Environment names of a setting, strongest first."""
    prefixed = PREFIX + leaf.env
    return (prefixed, leaf.env) if leaf.documented else (prefixed,)


def _noted(leaf: Leaf, value: str) -> str:
    """A token is hidden from here on, whatever happens to it next."""
    if leaf.secret:
        remember(value.strip())
    return value


def _check_foreign(name: str, place: str) -> None:
    """Raises ``SettingsError`` for a name in a ``.env`` that is no setting and was probably meant to be one."""
    if name.startswith(PREFIX) or name in by_env() or mask(name) != name:
        raise _unknown(name, place)
    setting = _OF_LAUNCHERS.get(name)
    if setting is None and not is_foreign(name):
        setting = _meant(name)
    elif name.startswith("HF_"):
        setting = nearest(name, [leaf.env for leaf in by_env().values() if leaf.documented], cutoff=_SLIP)
    if setting is not None:
        raise _unknown(name, place, setting)


def _meant(name: str) -> str | None:
    """The setting that a name was probably meant to be: by its spelling, or as part of the name of one (EPOCHS, MODEL, BATCHSIZE)."""
    words = name.upper().replace("-", "_").split("_")
    documented = [leaf for leaf in by_env().values() if leaf.documented]
    numbers = [leaf.env for leaf in documented if leaf.kind in ("int", "float") and _ends(leaf.env.split("_"), words)]
    headed = [leaf.env for leaf in documented if leaf.env.split("_")[0] == name.upper()]
    for matches in (numbers, headed):
        if len(matches) == 1:
            return matches[0]
    return nearest(name, by_env(), cutoff=_ALIKE)


def _ends(setting: Sequence[str], words: Sequence[str]) -> bool:
    """Whether ``words`` are the last of ``setting``, with gaps (NUM_EPOCHS of NUM_TRAIN_EPOCHS) or run together (BATCHSIZE)."""
    if words[-1] == setting[-1]:
        rest = iter(setting)
        return all(word in rest for word in words)
    return "".join(words) in ["".join(setting[start:]) for start in range(len(setting))]


def _unknown(name: str, place: str, setting: str | None = None) -> SettingsError:
    bare = name.removeprefix(PREFIX)
    leaf = by_env().get(bare)
    foreign = "" if name.startswith(PREFIX) else " If it is another program's, set it in the environment instead of this file."
    if leaf is not None:
        return SettingsError(
            f"{place}: {bare} is read with the prefix only, because the bare name is too common.",
            hint=f"Write {PREFIX}{bare}.{foreign}",
        )
    hint = "'pitstop config show' lists every setting."
    match = setting or nearest(bare, by_env())
    if match:
        needs_prefix = name.startswith(PREFIX) or not by_env()[match].documented
        hint = f"Did you mean {PREFIX if needs_prefix else ''}{match}?"
    return SettingsError(f"{place}: {mask(name)} is not a setting.", hint=f"{hint}{foreign}")
