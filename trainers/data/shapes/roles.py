"""What the roles of messages are called in data sets, and which of the five each is."""

from __future__ import annotations

from collections.abc import Mapping

ASSISTANT, SYSTEM, DEVELOPER, TOOL, USER = "assistant", "system", "developer", "tool", "user"
CALL = "function_call"
"""An answer whose content is a tool call."""

_NAMES = {
    SYSTEM: ("system",),
    DEVELOPER: ("developer",),
    USER: ("user", "human", "prompter"),
    ASSISTANT: ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard"),
    TOOL: ("tool", "function", "observation", "ipython", "tool_response"),
    CALL: ("function_call", "tool_call"),
}


def known_roles(template: str, mapped: Mapping[str, str]) -> dict[str, str]:
    """The role of each name without case; ``mapped`` (``--role``) goes first.

    ``developer`` stays where ``template``, the source of the chat template, names it, and is the system's otherwise. What a role is
    mapped to that is no known name is passed on as it is.
    """
    roles = {name: role for role, names in _NAMES.items() for name in names}
    if DEVELOPER not in template:
        roles[DEVELOPER] = SYSTEM
    return roles | {name: roles.get(role.casefold(), role) for name, role in mapped.items()}
