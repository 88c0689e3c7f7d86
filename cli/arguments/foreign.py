"""What of a ``.env`` is not for Pitstop: passed on to libraries and tools, and noticed where nobody knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pitstop.configs.notices import Notice
from pitstop.configs.sources import apply_foreign, is_foreign
from pitstop.trainers.machine.launch import rank


def pass_on(env_file: Path | None) -> list[Notice]:
    """Give what of the ``.env`` (``env_file``) is no setting to this process; returns a notice of names that are no well-known ones.

    Raises ``SettingsError`` for a file that cannot be read, or a name that was meant to be a setting.
    """
    names = [name for name in apply_foreign(env_file) if not is_foreign(name)]
    return [not_settings(names, env_file)] if names and rank() == 0 else []


def not_settings(names: Sequence[str], env_file: Path | None) -> Notice:
    """The names that were passed on."""
    reason = f"{env_file or '.env'}: passed on, since [it is no setting|they are no settings] of Pitstop: {{subject}}"
    return Notice(reason, ", ".join(names), len(names))
