"""The chat template in place of the tokenizer's: where it may come from, what is kept of it, and what it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.errors import ModelError, PitstopError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.chat.shipped import CHATML, PLAIN
from pitstop.trainers.models import templates
from pitstop.trainers.models.templates import keep_template, put_template, tokenizer_of
from support.chat_templates import byte_tokenizer
from support.fake_training import settings_with
from support.tiny_model import CHAT_TEMPLATE
from support.tokenizers_of_kinds import tokenizer_of as tokenizer_of_kind


def _kept(name: str) -> Settings:
    return keep_template(settings_with(data__chat_template=name))


def _text(settings: Settings) -> Any:
    return json.loads(settings.data.chat_template_text)


def _refusal(name: str) -> PitstopError:
    with pytest.raises(PitstopError) as caught:
        _kept(name)
    return caught.value


def test_without_the_setting_the_tokenizer_keeps_its_own(tiny: Path) -> None:
    settings = settings_with()
    assert keep_template(settings) is settings
    assert tokenizer_of(settings, tiny).chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize(("name", "template"), [("plain", PLAIN), ("chatml", CHATML), ("none", None)])
def test_a_template_by_name(name: str, template: str | None) -> None:
    settings = _kept(name)
    assert (settings.data.chat_template, _text(settings)) == (name, template)
    tokenizer = tokenizer_of_kind("byte-level", CHAT_TEMPLATE)
    put_template(tokenizer, settings)
    assert tokenizer.chat_template == template


def test_a_file_is_read_once_and_only_its_name_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages }}\n", encoding="utf-8")
    settings = _kept(str(path))
    assert (settings.data.chat_template, _text(settings)) == ("mine.jinja", "{{ messages }}\n")
    path.unlink()
    assert keep_template(settings) is settings


def test_a_tokenizers_directory_gives_its_template_or_its_templates_by_name(tiny: Path, tmp_path: Path) -> None:
    assert _text(_kept(str(tiny))) == CHAT_TEMPLATE
    tokenizer = tokenizer_of_kind("byte-level", None)
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(tmp_path / "several")
    assert _text(_kept(str(tmp_path / "several"))) == {"default": "{{ messages }}", "tool_use": "{{ tools }}"}


def test_a_hub_id_gives_that_of_its_tokenizer_at_no_revision_of_the_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def fetch(name: str, settings: Settings, revision: str | None) -> Path:
        asked.append((name, revision))
        return tiny

    monkeypatch.setattr(templates, "tokenizer_files", fetch)
    settings = keep_template(settings_with(data__chat_template="owner/name", model__revision="abc"))
    assert (settings.data.chat_template, _text(settings), asked) == ("owner/name", CHAT_TEMPLATE, [("owner/name", None)])


def test_what_gives_no_template_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jinja").write_text(" \n")
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    tokenizer_of_kind("byte-level", None).save_pretrained(tmp_path / "without")
    assert _refusal("chatlm").message == "--chat-template: there is no template 'chatlm'."
    assert _refusal("chatlm").hint.startswith("Did you mean chatml? Give plain, chatml, none, a .jinja file, ")
    assert "missing.jinja cannot be read: No such file or directory." in _refusal(str(tmp_path / "missing.jinja")).message
    assert "cannot be read: it is not UTF-8 text." in _refusal(str(tmp_path / "latin.jinja")).message
    assert "empty.jinja is empty." in _refusal(str(tmp_path / "empty.jinja")).message
    assert _refusal(str(tmp_path / "without")).message.endswith("without has no chat template.")
    assert _refusal(str(tmp_path / "no-such")).message.startswith("--chat-template: No tokenizer at ")
    assert isinstance(_refusal("chatlm"), SettingsError)


def test_chatml_needs_its_two_tokens_and_none_is_added() -> None:
    tokenizer = tokenizer_of_kind("byte-level", None)
    size = len(tokenizer)
    with pytest.raises(
        ModelError, match=r"--chat-template chatml needs the token <\|im_start\|>, which the tokenizer does not have"
    ):
        put_template(_without_marks(), _kept("chatml"))
    put_template(tokenizer, _kept("plain"))
    put_template(byte_tokenizer(), settings_with())
    assert len(tokenizer) == size


def _without_marks() -> Any:
    from support import tiny_model

    return tiny_model._byte_level(chat=False)
