"""How one setting is declared: its default, flag, environment name, meaning and limits."""

from __future__ import annotations

from dataclasses import field
from typing import Any, TypedDict, Unpack


class Limits(TypedDict, total=False):
    """What a value must keep: bounds of a number (``ge`` and ``le`` are inclusive), the least length of a text or a list.

    ``day``: a text is a day, as ``2026-01-31``.
    """

    ge: float
    gt: float
    le: float
    lt: float
    min_length: int
    day: bool


def setting(
    default: Any, help: str, *, flag: str, env: str = "", documented: bool = False, before: Any = None, **limits: Unpack[Limits]
) -> Any:
    """Declare one setting.

    ``flag`` is the long option, ``env`` the environment name: that of the flag (``LORA_RANK`` for ``--lora-rank``) unless given.
    A name from the customer's documents (``documented=True``) is read bare and with the ``PITSTOP_`` prefix; any other only with
    the prefix, so that an unrelated ``SEED`` or ``MODE`` in the environment stays none of our business. ``before`` is what holds for
    a run that lacks the setting, since it was started by an earlier version, where that is not the default.
    """
    env = env or flag.removeprefix("--").replace("-", "_").upper()
    return _field(default, help=help, env=env, flag=flag, documented=documented, limits=limits, before=before)


def recorded(default: Any, help: str, *, before: Any, **limits: Unpack[Limits]) -> Any:
    """Declare what a run has on record beside its settings and nobody sets: neither a flag, nor the environment, nor a file.

    ``before`` is what holds for a run that has it not on record, since it was started by an earlier version.
    """
    return _field(default, help=help, env="", flag="", documented=False, limits=limits, before=before)


def _field(default: Any, **metadata: Any) -> Any:
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
