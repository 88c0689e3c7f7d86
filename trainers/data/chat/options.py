"""How conversations are rendered: what a user chose, and the options a template is tried with for each answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.errors import SettingsError
from pitstop.configs.record_fields import parse_options
from pitstop.trainers.data.chat.template import ChatTemplate

THINKING_VARIABLES = ("enable_thinking", "thinking")


@dataclass(frozen=True)
class RenderingOptions:
    """``everything``: all of a conversation is learnt. ``rewritten_turns``: whether answers that the template later writes differently
    have an example each, or only the last one is learnt. ``thinking``: whether the template is asked for a thought; auto follows each
    answer. ``reasoning``: what becomes of thoughts that it does not render. ``system_role``: whether system texts stand in front of the
    first question; auto where the template takes none. ``merge_turns``: neighbours of one role become one message.
    ``template_options`` go to the template. ``asked``: the options that all answers of the training data are learnt behind, which are tried
    first and are what generation asks with; None where they differ or are not known.
    """

    everything: bool = False
    rewritten_turns: Literal["unroll", "skip"] = "unroll"
    thinking: Literal["auto", "on", "off"] = "auto"
    reasoning: Literal["auto", "inline", "drop"] = "auto"
    system_role: Literal["auto", "keep", "fold"] = "auto"
    merge_turns: bool = False
    template_options: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, data: DataSettings) -> RenderingOptions:
        """Those of the settings. Raises ``SettingsError``."""
        return cls(
            data.learn == "everything",
            data.rewritten_turns,
            data.thinking,
            data.reasoning,
            data.system_role,
            data.merge_turns,
            parse_options(data.template_options),
        )

    def check(self, template: ChatTemplate) -> None:
        """Raises ``SettingsError`` for options that ``template`` does not look at."""
        unknown = sorted(self.template_options.keys() - template.variables)
        if unknown:
            raise SettingsError(f"--template-option: the chat template uses no option {unknown[0]!r}.", hint="Leave it out.")
        if self.thinking != "auto" and thinking_variable(template) is None:
            raise SettingsError(
                f"--thinking {self.thinking}: the chat template has no option that asks for a thought.",
                hint="Leave --thinking out, or give another template with --chat-template.",
            )


def thinking_variable(template: ChatTemplate) -> str | None:
    """The option that asks for a thought, where the template has one."""
    return next((name for name in THINKING_VARIABLES if name in template.variables), None)


def option_sets(
    variable: str | None, chosen: Mapping[str, Any], thinking: str, *, has_thought: bool
) -> Sequence[Mapping[str, Any]]:
    """What the template is tried with for an answer, in order; ``variable`` is the option that asks for a thought."""
    if variable is None or variable in chosen:
        return (chosen,)
    if thinking != "auto":
        return ({**chosen, variable: thinking == "on"},)
    return (chosen, {**chosen, variable: has_thought})
