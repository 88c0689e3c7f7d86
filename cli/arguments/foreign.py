"""What of a ``.env`` is not for Pitstop: passed on to libraries and tools, and told where nobody knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pitstop.cli.terminal.output import notice
from pitstop.configs.secrets import mask
from pitstop.configs.sources import apply_foreign, is_foreign
from pitstop.trainers.machine.launch import rank


def pass_on(env_file: Path | None) -> None:
    """Give what of the ``.env`` (``env_file``) is no setting to this process; names that are no well-known ones are told.

    Raises ``SettingsError`` for a file that cannot be read, or a name that was meant to be a setting.
    """
    names = [name for name in apply_foreign(env_file) if not is_foreign(name)]
    if names and rank() == 0:
        notice(not_settings(names, env_file))


def not_settings(names: Sequence[str], env_file: Path | None) -> str:
    """One line that names what was passed on."""
    return f"{env_file or '.env'}: passed on, since they are not settings of Pitstop: {', '.join(map(mask, names))}"
