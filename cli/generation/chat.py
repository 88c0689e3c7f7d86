"""A session at the terminal: prompts in, answers out, and commands that begin with a slash."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pitstop.cli.terminal.output import notice, paint, say, warn
from pitstop.cli.terminal.streams import text_of
from pitstop.configs.errors import PitstopError
from pitstop.configs.shown import printable

if TYPE_CHECKING:
    from pitstop.trainers.training.chosen import ChosenCheckpoint
    from pitstop.trainers.using.answering import Answering, Turn
    from pitstop.trainers.using.opened import OpenModel

_HELP = """\
/use RUN@CHECKPOINT  let another checkpoint answer (3@last, run_002); the base is not loaded again
/use base            let the base answer, without an adapter
/text TEXT           ask for the entities in a text (of a run of the task ner)
/new                 begin a new conversation (with --multi-turn)
/help                this list
/quit                leave; Ctrl+D does too
Ctrl+C stops an answer that is being written."""


def show_piece(text: str) -> None:
    """Print a piece of an answer as it comes, without what would control the terminal."""
    print(printable(text, lines=True), end="", flush=True)


class Session:
    """Reads prompts until the user leaves. ``choose`` gives the checkpoint that a reference means."""

    def __init__(
        self, opened: OpenModel, answering: Answering, choose: Callable[[str], ChosenCheckpoint], *, multi_turn: bool
    ) -> None:
        self.opened, self.answering, self.choose, self.multi_turn = opened, answering, choose, multi_turn
        self.turns: list[Turn] = []
        self._prompts = 0

    def run(self) -> int:
        """The exit code, 0."""
        with contextlib.suppress(ImportError):  # line editing and a history, where Python was built with them
            import readline  # noqa: F401
        kind = "Each prompt goes on with the conversation." if self.multi_turn else "Each prompt stands by itself."
        notice(f"{self.opened.label} answers. {kind} /help lists the commands, Ctrl+D leaves.")
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._command(line):
                    break
            elif line:
                self._answer(line)
        return 0

    def _read(self) -> str | None:
        """The next line; empty after Ctrl+C, None at the end of the input."""
        try:
            return text_of(input(f"{printable(self.opened.label)}> ")).strip()
        except UnicodeDecodeError:
            warn("This line is no text: neither in the terminal's encoding nor in UTF-8.")
            return ""
        except KeyboardInterrupt:
            notice("\n(/quit or Ctrl+D leaves)")
            return ""
        except EOFError:
            say()
            return None

    def _command(self, line: str) -> bool:
        """Carry out a command; false to leave."""
        word, _, rest = line.partition(" ")
        if word in ("/quit", "/exit"):
            return False
        if word == "/help":
            say(_HELP)
        elif word == "/new":
            self.turns.clear()
            notice("A new conversation begins.")
        elif word == "/use":
            self._use(rest.strip())
        elif word == "/text":
            self._find(rest.strip())
        else:
            warn(f"There is no command {word}; /help lists them.")
        return True

    def _use(self, reference: str) -> None:
        from pitstop.trainers.using.opened import BASE

        if not reference:
            notice(f"Loaded: {', '.join(self.opened.labels)}. /use 2@last takes another one.")
            return
        try:
            is_loaded = reference in self.opened.labels or reference == BASE
            self.opened.use(reference if is_loaded else self.opened.add(self.choose(reference)))
        except PitstopError as error:
            self._tell(error)
            return
        self.turns.clear()

    def _find(self, text: str) -> None:
        from pitstop.cli.generation.entities import lines
        from pitstop.trainers.using.entities import entity_types, find_entities

        if not text:
            warn("/text needs a text behind it.")
            return
        with self._stoppable():
            for entities in find_entities(self.opened, [text], entity_types(self.opened), self.answering):
                for line in lines(entities):
                    say(line)

    def _answer(self, prompt: str) -> None:
        from pitstop.trainers.using.answering import follow, follow_conversation

        turns = [*self.turns, {"role": "user", "content": prompt}]
        with self._stoppable():
            if self.multi_turn:
                reply = follow_conversation(self.opened, turns, self.answering, show_piece)
                self.turns = [*turns, {"role": "assistant", "content": reply.text}]
            else:
                reply = follow(self.opened, prompt, self.answering, show_piece, number=self._prompts)
            self._prompts += 1
            say()
            if not reply.ended:
                say(paint(f"(cut at {self.answering.max_new_tokens} tokens)", "dim"))

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Ctrl+C ends what is computed inside, and an error is told; the session goes on."""
        try:
            yield
        except KeyboardInterrupt:
            say()
            say(paint("(stopped)", "dim"))
        except PitstopError as error:
            self._tell(error)

    @staticmethod
    def _tell(error: PitstopError) -> None:
        warn(error.message, error.hint)
        sys.stdout.flush()
