"""``pitstop generate --text`` for runs of the task ner: the entities in texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.cli.arguments.opening import answer_report, progress_notice, reporter
from pitstop.cli.terminal.output import paint, print_json, say
from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.cli.generation.decoding import Decoding
    from pitstop.trainers.training.chosen import ChosenCheckpoint
    from pitstop.trainers.using.entities import Found


@dataclass(frozen=True)
class Texts:
    """The options that say whose entities are asked for: ``texts`` or those of the file ``path``; no ``types`` are all types."""

    texts: tuple[str, ...]
    path: str | None
    types: tuple[str, ...]

    @property
    def flags(self) -> dict[str, Any]:
        """The options with their values; None where one was not given."""
        return {"--text": self.texts or None, "--texts": self.path, "--entity-type": self.types or None}

    @property
    def is_requested(self) -> bool:
        """Whether any of the options was given."""
        return any(value is not None for value in self.flags.values())

    def check(self, prompt_flags: Mapping[str, Any]) -> None:
        """Raises ``SettingsError`` for options of prompts beside the texts, and unless there are texts, in one place."""
        if other_flags := [flag for flag, value in prompt_flags.items() if value is not None]:
            raise SettingsError(
                f"{other_flags[0]} does not go with questions about texts.", hint="Ask about texts, or give prompts."
            )
        if bool(self.texts) == (self.path is not None):
            problem = "Both --text and --texts were given." if self.texts else "--entity-type: there is no text to ask about."
            raise SettingsError(problem, hint="Give either --text or --texts.")
        if blank := [text for text in self.texts if not text.strip()]:
            raise SettingsError(f"--text {blank[0]!r}: there is nothing in it.", hint="Give the text that is to be asked about.")

    def read(self) -> list[str]:
        """The texts. Raises ``DataError``."""
        from pitstop.trainers.data.prompts import read_prompts

        return read_prompts(Path(self.path).expanduser(), "text") if self.path is not None else list(self.texts)


def print_entities(plan: ChosenCheckpoint, request: Texts, decoding: Decoding, *, with_base: bool, json_output: bool) -> int:
    """Ask the checkpoint, and ``with_base`` the base too, for the entities in the texts; returns the exit code."""
    answering = decoding.answering()
    from pitstop.trainers.using.entities import entity_types, find_entities
    from pitstop.trainers.using.opened import open_model

    texts = request.read()
    opened = open_model(plan, reporter())
    types = entity_types(opened, request.types)
    tell = progress_notice(len(texts) * len(types))
    entities = {label: find_entities(opened, texts, types, answering, tell) for label in opened.in_turn(with_base=with_base)}
    if json_output:
        rows = [
            {"text": text, "found": {label: asdict(results[number]) for label, results in entities.items()}}
            for number, text in enumerate(texts)
        ]
        print_json({**answer_report(opened, answering), "entity_types": list(types), "texts": rows})
    else:
        _print(texts, entities)
    return 0


def lines(result: Found) -> list[str]:
    """A line for each entity type: its name and the entities."""
    cut = paint(" (cut at the limit of tokens)", "dim")
    return [
        f"{paint(f'{kind}:', 'cyan')} {', '.join(items) or '-'}{cut if kind in result.cut else ''}"
        for kind, items in result.entities.items()
    ]


def _print(texts: Sequence[str], entities: Mapping[str, Sequence[Found]]) -> None:
    """Of one text and one model the entities alone; otherwise each with its text and model."""
    alone = len(texts) == 1 and len(entities) == 1
    for number, text in enumerate(texts):
        if not alone:
            say(paint(f"> {text}", "bold"))
        for label, results in entities.items():
            if len(entities) > 1:
                say(f"{label}:")
            for line in lines(results[number]):
                say(f"  {line}" if len(entities) > 1 else line)
        if not alone:
            say()
