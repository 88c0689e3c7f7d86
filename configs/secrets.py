"""Keep token values out of everything that is printed or stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

HIDDEN = "<hidden>"

_TOKEN_SHAPE = re.compile(r"hf_[A-Za-z0-9]{20,}")
_SECRET_NAME = re.compile(r"(?:TOKEN|API_KEY|SECRET|SECRET_ACCESS_KEY|PASSWORD)$", re.IGNORECASE)
_SHORTEST = 6  # masking a shorter "secret" would blank out ordinary words

_remembered: set[str] = set()


def remember(value: str) -> None:
    """Hide ``value`` in every later call of ``mask``: called where a token is read, so that no caller can forget it."""
    if len(value) >= _SHORTEST:
        _remembered.add(value)


def mask(text: str, values: Iterable[str] = ()) -> str:
    """Replace every known token in ``text`` by ``<hidden>``.

    Known are ``values``, tokens that were read as settings, the values of environment variables that are named like a
    secret (``HF_TOKEN``, ``WANDB_API_KEY``, …), and whatever has the shape of a Hugging Face token.
    """
    environment = {value for name, value in os.environ.items() if is_secret_name(name)}
    secrets = _remembered | {value for value in (*values, *environment) if len(value) >= _SHORTEST}
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _TOKEN_SHAPE.sub(HIDDEN, text)


class Secret:
    """The value of a secret setting, kept out of ``repr``, f-strings, logs and tracebacks, and hidden by ``mask`` from here on."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        remember(value)
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the library that authenticates with it."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return bool(_SECRET_NAME.search(name))
