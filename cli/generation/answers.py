"""``pitstop generate`` for prompts: answers to given ones, or a session at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.cli.arguments.opening import answer_report, progress_notice, reporter
from pitstop.cli.generation.chat import Session, show_piece
from pitstop.cli.terminal.output import is_terminal, paint, print_json, say
from pitstop.cli.terminal.streams import text_of
from pitstop.configs.errors import DataError, SettingsError

if TYPE_CHECKING:
    from pitstop.cli.generation.decoding import Decoding
    from pitstop.trainers.models.generation import Answer
    from pitstop.trainers.training.chosen import ChosenCheckpoint
    from pitstop.trainers.using.answering import Answering
    from pitstop.trainers.using.opened import OpenModel


@dataclass(frozen=True)
class Prompts:
    """The options that say what is answered: ``texts``, those of the file ``path``, or else standard input."""

    texts: tuple[str, ...]
    path: str | None
    multi_turn: bool

    @property
    def flags(self) -> dict[str, Any]:
        """The options with their values; None where one was not given."""
        return {"--prompt": self.texts or None, "--prompts": self.path, "--multi-turn": self.multi_turn or None}

    def read(self, session_refused: str | None) -> list[str] | None:
        """The prompts, or None for a session at the terminal.

        ``session_refused`` is an option that was given and has no meaning in a session.

        Raises:
            SettingsError: there are no prompts, or options contradict each other.
            DataError: a prompt cannot be read.
        """
        if self.texts and self.path is not None:
            raise SettingsError("Both --prompt and --prompts were given.", hint="Give one of them.")
        piped = None if self.texts or self.path is not None or is_terminal(sys.stdin) else _from_stdin()
        is_session = not self.texts and self.path is None and piped is None
        if self.multi_turn and not is_session:
            raise SettingsError("--multi-turn is for a session at the terminal.", hint="Leave it out where prompts are given.")
        if is_session and session_refused:
            raise SettingsError(
                f"{session_refused} needs prompts.", hint="Give --prompt or --prompts; in a session, /use base shows the base."
            )
        if self.path is None:
            return piped or list(self.texts) or None
        from pitstop.trainers.data.prompts import read_prompts

        return read_prompts(Path(self.path).expanduser())


def _from_stdin() -> list[str]:
    from pitstop.trainers.data.prompts import lines_of

    try:
        prompts = lines_of(text_of(sys.stdin.read()))
    except UnicodeDecodeError as error:
        raise DataError("Standard input is not UTF-8 text.", hint="Convert it to UTF-8.") from error
    if not prompts:
        raise SettingsError(
            "There is no prompt on standard input.", hint="Give --prompt TEXT, --prompts FILE, or a line on stdin."
        )
    return prompts


def answer_prompts(
    plan: ChosenCheckpoint,
    prompts: Prompts,
    decoding: Decoding,
    choose: Callable[[str], ChosenCheckpoint],
    *,
    with_base: bool,
    json_output: bool,
) -> int:
    """Answer the prompts, or begin a session in which ``choose`` gives the checkpoint that a reference means.

    Returns the exit code. Raises ``PitstopError``.
    """
    texts = prompts.read(session_refused="--json" if json_output else "--base" if with_base else None)
    from pitstop.trainers.using.opened import open_model

    answering = decoding.answering()
    opened = open_model(plan, reporter())
    if texts is None:
        return Session(opened, answering, choose, multi_turn=prompts.multi_turn).run()
    if is_terminal() and not json_output and not with_base:
        _show_as_written(opened, texts, answering)
    else:
        _answer_all(opened, texts, answering, with_base=with_base, json_output=json_output)
    return 0


def _show_as_written(opened: OpenModel, prompts: Sequence[str], answering: Answering) -> None:
    from pitstop.trainers.using.answering import follow

    for number, prompt in enumerate(prompts):
        if len(prompts) > 1:
            say(paint(f"> {prompt}", "bold"))
        follow(opened, prompt, answering, show_piece, number=number)
        say()


def _answer_all(opened: OpenModel, prompts: Sequence[str], answering: Answering, *, with_base: bool, json_output: bool) -> None:
    from pitstop.trainers.using.answering import answer

    labels, tell = opened.in_turn(with_base=with_base), progress_notice(len(prompts))
    answers = {label: answer(opened, prompts, answering, tell) for label in labels}
    if not json_output:
        _print(prompts, answers)
        return
    rows = [
        {"prompt": prompt, "answers": {label: asdict(replies[number]) for label, replies in answers.items()}}
        for number, prompt in enumerate(prompts)
    ]
    print_json({**answer_report(opened, answering), "answers": rows})


def _print(prompts: Sequence[str], answers: Mapping[str, Sequence[Answer]]) -> None:
    """Of one prompt and one model the answer alone, so that it can be piped; otherwise each with its prompt and model."""
    if len(prompts) == 1 and len(answers) == 1:
        say(next(iter(answers.values()))[0].text)
        return
    for number, prompt in enumerate(prompts):
        say(paint(f"> {prompt}", "bold"))
        for label, replies in answers.items():
            head = paint(f"{label}: ", "cyan") if len(answers) > 1 else ""
            say(f"{head}{replies[number].text}")
        say()
