"""The chat template that a run has in place of its tokenizer's: read at the start, and kept in the run as text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pitstop.checkpointing.store.portable_paths import portable
from pitstop.configs.errors import ModelError, SettingsError
from pitstop.configs.leaves import nearest
from pitstop.configs.schema import Settings
from pitstop.trainers.data.chat.shipped import SHIPPED, TOKENS
from pitstop.trainers.models.source import tokenizer_files
from pitstop.trainers.models.tokenizer import load_tokenizer

OWN, NONE = "tokenizer", "none"
"""What ``--chat-template`` is for the tokenizer's own template, and for none at all."""

_KNOWN = "Give plain, chatml, none, a .jinja file, a Hub id such as owner/name, or the directory of a tokenizer."


def keep_template(settings: Settings) -> Settings:
    """``settings`` with the text of the chat template that they name, which is read unless it is on record, and without this machine's places.

    Raises ``SettingsError`` for a file that cannot be read and a name that there is not, ``ModelError`` for a tokenizer that cannot be
    had or has no template.
    """
    data = settings.data
    if data.chat_template == OWN or data.chat_template_text:
        return settings
    text = json.dumps(_read(data.chat_template, settings), ensure_ascii=False)
    return replace(settings, data=replace(data, chat_template=portable(data.chat_template), chat_template_text=text))


def put_template(tokenizer: Any, settings: Settings) -> None:
    """Give ``tokenizer`` the chat template on record. Raises ``ModelError`` where its vocabulary lacks the marks of a shipped one."""
    data = settings.data
    if not data.chat_template_text:
        return
    for token in TOKENS.get(data.chat_template, ()):
        if len(tokenizer(token, add_special_tokens=False)["input_ids"]) != 1:
            raise ModelError(
                f"--chat-template {data.chat_template} needs the token {token}, which the tokenizer does not have.",
                hint="Pitstop adds no token, since its embedding would have to be trained. Give --chat-template plain, or a .jinja file.",
            )
    tokenizer.chat_template = json.loads(data.chat_template_text)


def tokenizer_of(settings: Settings, path: Path) -> Any:
    """The tokenizer in ``path`` as a run with ``settings`` has it. Raises ``ModelError``."""
    tokenizer = load_tokenizer(path)
    put_template(tokenizer, settings)
    return tokenizer


def _read(name: str, settings: Settings) -> str | dict[str, str] | None:
    """A template, several by name, or none."""
    if name == NONE:
        return None
    if name in SHIPPED:
        return SHIPPED[name]
    path = Path(name).expanduser()
    if name.endswith(".jinja") or path.is_file():
        return _text_of(path)
    if "/" not in name and not path.is_dir():
        match = nearest(name, [OWN, *SHIPPED, NONE])
        suggestion = f"Did you mean {match}? " if match else ""
        raise SettingsError(f"--chat-template: there is no template '{name}'.", hint=suggestion + _KNOWN)
    try:
        template = load_tokenizer(tokenizer_files(name, settings, None)).chat_template
    except ModelError as error:
        raise type(error)(f"--chat-template: {error.message}", hint=error.hint or _KNOWN) from error
    if template is None:
        raise ModelError(f"--chat-template: the tokenizer of {name} has no chat template.", hint=_KNOWN)
    result: str | dict[str, str] = template
    return result


def _text_of(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"--chat-template: the file {path} cannot be read: {reason}.", hint=_KNOWN) from error
    if not text.strip():
        raise SettingsError(f"--chat-template: the file {path} is empty.", hint="--chat-template none takes the template away.")
    return text
