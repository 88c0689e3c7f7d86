"""Data sets on the Hub: revisions, configs and splits, and a run that stays with the commit that it began with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pitstop.configs.errors import DataError
from support.hub import Hub
from support.hub.distant import Distant
from support.hub.machine import Machine
from support.json_lines import json_lines
from support.training import arguments, assert_same_end, metadata

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]
LIBRARY = "support.hub.library:"
REPO = "tester/chats"
CARD = "---\nconfigs:\n- config_name: de\n  data_files:\n  - split: train\n    path: de.jsonl\n- config_name: en\n  data_files:\n  - split: train\n    path: en.jsonl\n  - split: test\n    path: en-test.jsonl\n---\n"


@pytest.fixture
def hub(emptied_hub: Hub) -> Hub:
    """An empty hub, whatever another test left behind."""
    return emptied_hub


def _rows(*texts: str) -> str:
    return json_lines(*({"text": text} for text in texts))


def _read(distant: Distant, spec: str, split: str = "train") -> list[str]:
    return [fields["text"] for fields in distant(f"{LIBRARY}records", spec, split)]


def _error(distant: Distant, spec: str, split: str = "train") -> DataError:
    with pytest.raises(DataError) as caught:
        _read(distant, spec, split)
    return caught.value


def test_a_revision_a_config_and_a_split_are_read_as_they_are_named(hub: Hub, module_lfs: Distant) -> None:
    files = {"README.md": CARD, "de.jsonl": _rows("eins"), "en.jsonl": _rows("one", "two"), "en-test.jsonl": _rows("three")}
    first = module_lfs(f"{LIBRARY}push_data", REPO, files)
    module_lfs(f"{LIBRARY}push_data", REPO, {"en.jsonl": _rows("uno")})
    assert _read(module_lfs, f"{REPO}:de") == ["eins"]
    assert _read(module_lfs, f"hub:{REPO}:en") == ["uno"]
    assert _read(module_lfs, f"{REPO}@{first}:en") == ["one", "two"]
    assert _read(module_lfs, f"{REPO}@{first}:en:train[:1]") == ["one"]
    assert _read(module_lfs, f"{REPO}:en:test") == _read(module_lfs, f"{REPO}:en", "test") == ["three"]


def test_configs_and_splits_that_there_are_are_named(hub: Hub, module_lfs: Distant) -> None:
    files = {"README.md": CARD, "de.jsonl": _rows("eins"), "en.jsonl": _rows("one"), "en-test.jsonl": _rows("three")}
    module_lfs(f"{LIBRARY}push_data", REPO, files)
    several = _error(module_lfs, REPO)
    assert (several.message, several.hint) == (f"{REPO} has the configs de, en.", f"Choose one: {REPO}:de.")
    assert _error(module_lfs, f"{REPO}:fr").message == f"{REPO} has the configs de, en and not fr."
    split = _error(module_lfs, f"{REPO}:en:dev")
    assert (split.message, split.hint) == (
        f"{REPO} has no split dev; it has train, test.", f"Choose one: --split NAME, or {REPO}:en:train."
    )  # fmt: skip
    assert "Cannot read data set tester/nowhere" in _error(module_lfs, "tester/nowhere").message


def test_a_run_stays_with_the_commit_that_it_began_with(hub: Hub, module_lfs: Distant, tiny_model: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path, hub).furnish(tiny_model)
    content = machine.data.read_text(encoding="utf-8")
    commit = module_lfs(f"{LIBRARY}push_data", REPO, {"train.jsonl": content})
    settings = {"method": "lora", "dataset": REPO, "eval_dataset": None, "save_strategy": "steps", "save_steps": 2}

    def prepare() -> None:
        """The library took the address of the Hub from the environment when it was imported, long before this process began."""
        import datasets

        datasets.config.HF_HUB_OFFLINE = False
        datasets.config.HF_ENDPOINT, datasets.config.HF_DATASETS_CACHE = hub.endpoint, tmp_path / "hf" / "datasets"

    def pitstop(*words: object) -> str:
        ended = machine.start(*words, prepare=prepare).wait(120)
        assert ended.code == 0, ended.output
        return ended.output

    told = pitstop(*arguments(tiny_model, tmp_path, machine.runs, **settings, max_steps=4, keep_last_n="none"))
    assert f"{REPO}@{commit} is read at the commit that it has now" in told
    shutil.copytree(machine.run, tmp_path / "whole", symlinks=True)
    module_lfs(f"{LIBRARY}push_data", REPO, {"train.jsonl": _rows("something else", "and more")})
    pitstop("resume", "1@checkpoint-2", "--base-dir", machine.runs)
    assert_same_end(machine.run, tmp_path / "whole")
    recorded = metadata(machine.run)
    assert recorded["dataset"] == "chats" and any(commit in notice["subject"] for notice in recorded["notices"])
    assert json.loads((machine.run / "config.json").read_text())["data"]["train"] == [f"{REPO}@{commit}"]
