"""Records of preferences, read and rendered to be looked at: no task learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from pitstop.configs.errors import SettingsError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.chat.conversation import Conversation, Preference
from pitstop.trainers.data.chat.preferences import encode_preferences
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.shapes.normal_form import NoTemplate
from pitstop.trainers.data.shapes.preference_form import PreferenceForm
from pitstop.trainers.tasks.sft import SftTask

JUDGED = "{count} [record has|records have] one answer, which is judged to be {subject}"


class PreferenceRecords(SftTask):
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

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        """The example of each record, or the error it raised."""
        forms = [self._read(record, bad_rows) for record in records]
        encoded = iter(encode_preferences(self.chat, [form for form in forms if isinstance(form, Preference)]))
        results: list[list[Example] | BadRecord] = []
        for record, form in zip(records, forms, strict=True):
            item = form if isinstance(form, BadRecord) else next(encoded)
            if isinstance(item, BadRecord):
                item.answers = item.answers or _answers(form)
                results.append(item)
                continue
            self._tell(item, record, bad_rows)
            if isinstance(form, Preference) and len(form.answers) == 1:
                bad_rows.notices.add(Notice(JUDGED, "good" if form.chosen is not None else "bad"))
            group = self.normal_form.group(record)
            results.append([replace(example, group=group) for example in item.examples])
        return results

    def _read(self, record: Record, bad_rows: BadRows) -> Preference | BadRecord:
        try:
            return self.normal_form.read_preference(record, bad_rows)
        except NoTemplate as error:
            raise self._no_template(record) from error
        except BadRecord as error:
            return error

    @property
    def too_long_remedy(self) -> str:
        """See ``TextTask``."""
        return "Raise --max-length to keep them: the question counts with the longer answer."


def _answers(form: Preference | BadRecord) -> int:
    """How many answers of a record are to be learnt."""
    if isinstance(form, BadRecord):
        return 0
    return sum(sum(answer.learnt) if isinstance(answer, Conversation) else 1 for answer in form.answers)
