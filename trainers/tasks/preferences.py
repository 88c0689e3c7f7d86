"""Records of preferences, read and rendered to be looked at: no task learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from pitstop.configs.errors import SettingsError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.chat.conversation import Conversation, Preference
from pitstop.trainers.data.chat.preferences import encode_preferences
from pitstop.trainers.data.chat.renderer import Encoded
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.shapes.preference_form import PreferenceForm
from pitstop.trainers.tasks.sft import FormTask

JUDGED = "{count} [record has|records have] one answer, which is judged to be {subject}"


class PreferenceRecords(FormTask[Preference]):
    """A question and its answers for each record, as one example."""

    @cached_property
    def normal_form(self) -> PreferenceForm:
        """Reads preferences. Raises ``SettingsError`` for settings of what is learnt, which do not go with them."""
        data = self.settings.data
        if data.learn != "all":
            raise SettingsError(f"--learn {data.learn} does not go with --shape preference.", hint="Leave --learn out.")
        if data.too_long not in ("auto", "drop", "refuse"):
            raise SettingsError(
                f"--too-long {data.too_long} does not go with --shape preference.",
                hint="Records that are too long are left out: leave --too-long out, or raise --max-length.",
            )
        return self._form_reader(PreferenceForm)

    def _read(self, record: Record, bad_rows: BadRows) -> Preference:
        return self.normal_form.read_preference(record, bad_rows)

    def _encode(self, forms: Sequence[Preference]) -> list[Encoded | BadRecord]:
        return encode_preferences(self.chat, forms)

    def _answers(self, form: Preference) -> int:
        return sum(sum(answer.learnt) if isinstance(answer, Conversation) else 1 for answer in form.answers)

    def _fitted(self, form: Preference, examples: list[Example], place: str, bad_rows: BadRows) -> list[Example]:
        """All of them: reading leaves out what is too long."""
        if len(form.answers) == 1:
            bad_rows.notices.add(Notice(JUDGED, "good" if form.chosen is not None else "bad"))
        return examples

    @property
    def too_long_remedy(self) -> str:
        """See ``TextTask``."""
        return "Raise --max-length to keep them: the question counts with the longer answer."
