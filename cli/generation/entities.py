"""``pitstop generate --text`` for runs of the task ner: the entities in texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pitstop.cli.arguments.opening import reporter, telling, who_answered
from pitstop.cli.terminal.output import paint, print_json, say
from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.trainers.training.resuming import ResumePlan
    from pitstop.trainers.using.answering import Answering
    from pitstop.trainers.using.entities import Found


@dataclass(frozen=True)
class Texts:
    """What is asked about: ``given`` or those of the file ``path``; ``types`` are all that training asked for where none is named."""

    given: tuple[str, ...]
    path: str | None
    types: tuple[str, ...]

    @property
    def wanted(self) -> bool:
        """Whether anything of this was given."""
        return bool(self.given or self.types) or self.path is not None

    def check(self) -> None:
        """Raises ``SettingsError`` unless there are texts, in one place."""
        if bool(self.given) == (self.path is not None):
            both = "Both --text and --texts were given." if self.given else "--entity-type: there is no text to ask about."
            raise SettingsError(both, hint="Give either --text or --texts.")
        if empty := [text for text in self.given if not text.strip()]:
            raise SettingsError(f"--text {empty[0]!r}: there is nothing in it.", hint="Give the text that is to be asked about.")

    def read(self) -> list[str]:
        """The texts. Raises ``DataError``."""
        from pitstop.trainers.data.prompts import read_prompts

        return read_prompts(Path(self.path).expanduser(), "text") if self.path is not None else list(self.given)


def find(plan: ResumePlan, wanted: Texts, how: Answering, *, base: bool, json_output: bool) -> int:
    """Ask the checkpoint, and with ``base`` the base too, for the entities in the texts, and print them."""
    from pitstop.trainers.using.entities import entity_types, find_entities
    from pitstop.trainers.using.opened import open_model

    texts = wanted.read()
    opened = open_model(plan, reporter())
    types = entity_types(opened, wanted.types)
    tell = telling(len(texts) * len(types))
    found = {label: find_entities(opened, texts, types, how, tell) for label in opened.in_turn(with_base=base)}
    if json_output:
        rows = [
            {"text": text, "found": {label: asdict(each[number]) for label, each in found.items()}}
            for number, text in enumerate(texts)
        ]
        print_json({**who_answered(opened, how), "entity_types": list(types), "texts": rows})
    else:
        _print(texts, found)
    return 0


def lines(found: Found) -> list[str]:
    """A line for each entity type: its name and what was found."""
    return [_line(kind, items, cut=kind in found.cut) for kind, items in found.entities.items()]


def _line(kind: str, items: Sequence[str], *, cut: bool) -> str:
    limit = paint(" (cut at the limit of tokens)", "dim") if cut else ""
    return f"{paint(f'{kind}:', 'cyan')} {', '.join(items) or '-'}{limit}"


def _print(texts: Sequence[str], found: Mapping[str, Sequence[Found]]) -> None:
    """Of one text and one model the entities alone; otherwise each with its text and model."""
    alone = len(texts) == 1 and len(found) == 1
    for number, text in enumerate(texts):
        if not alone:
            say(paint(f"> {text}", "bold"))
        for label, each in found.items():
            if len(found) > 1:
                say(f"{label}:")
            for line in lines(each[number]):
                say(f"  {line}" if len(found) > 1 else line)
        if not alone:
            say()
