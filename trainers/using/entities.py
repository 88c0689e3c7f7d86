"""The entities that an opened checkpoint of the task ner finds in texts: each is asked for each type, as in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pitstop.configs.errors import DataError, SettingsError
from pitstop.trainers.data.prompts import room_for_prompt, tokenised
from pitstop.trainers.tasks.ner.scores import parse_items
from pitstop.trainers.tasks.ner.task import NerTask
from pitstop.trainers.tasks.ner.wording import type_name
from pitstop.trainers.using.answering import Answering, answer_ids
from pitstop.trainers.using.opened import OpenModel


@dataclass(frozen=True)
class Found:
    """What was found in one text, by entity type; of the types in ``cut`` the limit ended the answer, so that some may be missing."""

    entities: dict[str, list[str]]
    cut: tuple[str, ...]


def entity_types(opened: OpenModel, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The types to ask for: ``names``, as metrics spell them, or those that training asked for.

    Raises ``SettingsError`` for a run of another task and a name without a letter, and ``DataError`` where the types are those
    of the training data, and that cannot be read.
    """
    task = _ner(opened)
    if nameless := [written for written in names if not type_name(written)]:
        raise SettingsError(f"--entity-type: {nameless[0]!r} has no letter or digit.", hint="For example: --entity-type disease")
    if names:
        return tuple(dict.fromkeys(type_name(written) for written in names))
    try:
        return task.entity_types()
    except DataError as error:
        hint = "The types that training asked for are those of its data. Name them: --entity-type chemical --entity-type disease"
        raise type(error)(error.message, hint=hint) from error


def find_entities(
    opened: OpenModel,
    texts: Sequence[str],
    types: Sequence[str],
    options: Answering,
    tell: Callable[[int], None] = lambda count: None,
) -> list[Found]:
    """What is in use finds in ``texts``, in their order; ``tell`` hears how many questions are answered.

    Raises ``DataError`` for a text that does not fit, and ``ResourceError`` where memory runs out with a single question.
    """
    task = _ner(opened)
    room = room_for_prompt(opened.model, options.max_new_tokens)
    questions: list[list[int]] = []
    for kind in types:  # a type at a time, so that a text that does not fit is named by its number
        questions += tokenised([task.question(text, kind) for text in texts], task.prompt_ids, longest=room, noun="text")
    answers = answer_ids(opened, questions, options, tell)
    results = []
    for number in range(len(texts)):
        by_type = dict(zip(types, answers[number :: len(texts)], strict=True))
        cut = tuple(kind for kind, answer in by_type.items() if not answer.ended)
        results.append(Found({kind: parse_items(answer.text) for kind, answer in by_type.items()}, cut))
    return results


def _ner(opened: OpenModel) -> NerTask:
    if not isinstance(opened.task, NerTask):
        raise SettingsError(
            f"{opened.chosen.run.label} is of the task {opened.task.name}: it was not trained to find entities in texts.",
            hint="Give it a prompt.",
        )
    return opened.task
