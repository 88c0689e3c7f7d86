"""The Hub's client for commands, with the token that the user has set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pitstop.checkpointing.hub.client import HubClient


def hub_client(env_file: Path | None) -> HubClient:
    """The client with the token of the settings, else with the client's own login. ``SettingsError`` for a bad ``env_file``."""
    from pitstop.cli.arguments.foreign import pass_on
    from pitstop.cli.terminal.output import tell
    from pitstop.configs.load import load_recorded

    token = load_recorded({}, env_file=env_file).settings.hub.token_value  # what else .env says is for new runs
    tell(pass_on(env_file))  # before the client's library reads the environment
    from pitstop.checkpointing.hub.client import HubClient

    return HubClient(token)
