"""Which question an answer belongs to, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pitstop.configs.errors import DataError, SettingsError
from pitstop.configs.schema import NerSettings, Settings, TrainingSettings
from pitstop.trainers.models.generation import Answer
from pitstop.trainers.tasks.ner.task import NerTask
from pitstop.trainers.tasks.sft import SftTask
from pitstop.trainers.using import entities
from pitstop.trainers.using.answering import Answering
from pitstop.trainers.using.entities import Found, entity_types, find_entities

GIVEN = {
    "Name each chemical: Aspirin eased it.": Answer("- Aspirin\n- aspirin", 5, True),
    "Name each cell line: Aspirin eased it.": Answer("- none", 3, True),
    "Name each chemical: HeLa cells, with and without zinc.": Answer("- zinc\n- zi", 9, False),
    "Name each cell line: HeLa cells, with and without zinc.": Answer("- HeLa", 4, True),
}


@pytest.fixture
def opened(tokenizer: Any) -> Any:
    settings = Settings(
        training=TrainingSettings(task="ner"),
        ner=NerSettings(prompt="Name each {type}: {text}", entity_types=["chemical", "cell_line"]),
    )
    limit = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=400))
    return SimpleNamespace(task=NerTask(tokenizer, settings), model=SimpleNamespace(config=limit))


def test_each_answer_is_read_for_its_text_and_type(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {tuple(opened.task.prompt_ids(prompt)): answer for prompt, answer in GIVEN.items()}

    def answer_ids(opened: Any, ids: Sequence[Sequence[int]], how: Answering, tell: Callable[[int], None]) -> list[Answer]:
        tell(len(ids))
        return [given[tuple(each)] for each in ids]

    monkeypatch.setattr(entities, "answer_ids", answer_ids)
    heard: list[int] = []
    texts = ["Aspirin eased it.", "HeLa cells, with and without zinc."]
    assert find_entities(opened, texts, entity_types(opened), Answering(), heard.append) == [
        Found({"chemical": ["Aspirin"], "cell_line": []}, ()),
        Found({"chemical": ["zinc", "zi"], "cell_line": ["HeLa"]}, ("chemical",)),
    ]
    assert heard == [4]


def test_a_text_that_does_not_fit_is_named_by_its_own_number(opened: Any) -> None:
    with pytest.raises(DataError, match=r"^text 2: it is .* tokens long, and there is room for 144"):
        find_entities(opened, ["Short.", "long " * 300, "Short."], ["chemical", "disease", "gene"], Answering())


def test_types_are_spelt_as_in_training_and_each_is_asked_for_once(opened: Any) -> None:
    assert entity_types(opened, ["Cell-Line", "cell line", "Gene"]) == ("cell_line", "gene")
    assert entity_types(opened) == ("chemical", "cell_line")


def test_a_run_of_another_task_has_no_questions_about_texts(tokenizer: Any) -> None:
    opened: Any = SimpleNamespace(task=SftTask(tokenizer), chosen=SimpleNamespace(run=SimpleNamespace(label="run_003")))
    with pytest.raises(SettingsError, match="run_003 is of the task sft"):
        entity_types(opened)
