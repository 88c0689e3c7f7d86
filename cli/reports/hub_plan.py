"""Where a run would be pushed, as far as that is known without asking the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import Settings
from pitstop.naming.names import hub_id


def push_plan(settings: Settings, name: str) -> dict[str, Any] | None:
    """What pushing a run called ``name`` would come to; None where it is not pushed.

    ``repo`` is None where the owner is only known to the Hub (the token's account). ``missing`` lists what would keep
    checkpoints from being pushed. Nothing is asked over a network.
    """
    hub = settings.hub
    if not hub.push:
        return None
    missing = [] if has_token(settings) else ["no token found: set HF_TOKEN, or log in with `hf auth login`"]
    from huggingface_hub import is_offline_mode

    missing += ["HF_HUB_OFFLINE is set"] if is_offline_mode() else []
    repo = hub.repo
    if repo is not None and repo.count("/") != 1:
        missing.append(f"{repo!r} is not a repository id: write owner/name")
    if repo is None and hub.username is not None:
        try:
            repo = hub_id(hub.username, name)
        except SettingsError as error:
            missing.append(error.message.rstrip("."))
    return {"repo": repo, "name": name, "private": hub.private, "keep_last_n": hub.keep_last_n, "missing": missing}


def has_token(settings: Settings) -> bool:
    """Whether a Hub token is at hand, in the settings or from the Hub client's own login. It may still be a wrong one."""
    if settings.hub.token is not None:
        return True
    from huggingface_hub import get_token

    return bool(get_token())


def in_words(plan: Mapping[str, Any]) -> str:
    """One line for the table of a plan."""
    repo = plan["repo"] or f"{plan['name']} of the token's account"
    kind = "private" if plan["private"] else "public"
    keeps = "" if plan["keep_last_n"] is None else f", the best and the newest {plan['keep_last_n']} kept"
    return f"{repo} ({kind}{keeps})"
