"""The options of ``pitstop generate`` that say how answers are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pitstop.configs.errors import SettingsError

if TYPE_CHECKING:
    from pitstop.trainers.using.answering import Answering

_MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Decoding:
    """Length, sampling and batch size of answers; None where an option was not given. Temperature 0 is greedy."""

    max_new_tokens: int | None
    temperature: float
    top_p: float | None
    seed: int | None
    batch_size: int

    @property
    def flags(self) -> dict[str, Any]:
        """The options that only answers have, with their values; None where one was not given."""
        return {"--max-new-tokens": self.max_new_tokens, "--temperature": self.temperature or None, "--top-p": self.top_p}

    def check(self) -> None:
        """Raises ``SettingsError`` for a share outside (0, 1] and for options that would change nothing."""
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise SettingsError(
                f"--top-p {self.top_p}: it must be above 0 and at most 1.", hint="0.9 is usual; 1 keeps every token."
            )
        unused = "--top-p" if self.top_p is not None else "--seed" if self.seed is not None else None
        if self.temperature == 0.0 and unused:
            raise SettingsError(f"{unused} means nothing without sampling.", hint="Add --temperature 0.7, say.")

    def answering(self) -> Answering:
        """The same for the model, which imports torch."""
        from pitstop.trainers.models.generation import Sampling
        from pitstop.trainers.using.answering import Answering

        top_p = 1.0 if self.top_p is None else self.top_p
        sampling = Sampling(self.temperature, top_p, self.seed or 0) if self.temperature else None
        return Answering(self.max_new_tokens or _MAX_NEW_TOKENS, self.batch_size, sampling)
