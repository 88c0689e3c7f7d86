"""From the fields of a record to a question with a better and a worse answer."""

from __future__ import annotations

from pitstop.trainers.data.chat.conversation import Conversation, Document, Message, Preference, TextPair
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.shapes.messages import THOUGHT_FIELDS, RecordAccount
from pitstop.trainers.data.shapes.normal_form import END_TOKEN, NormalForm
from pitstop.trainers.data.shapes.paths import Fields
from pitstop.trainers.data.shapes.preferences import (
    CHOSEN,
    REJECTED,
    AnswerParting,
    PreferenceFields,
    answers_in,
    judgement,
    margin,
    preference_shape,
)
from pitstop.trainers.data.shapes.recognition import Kind, Shape, recognise


class PreferenceForm(NormalForm):
    """Reads records that are preferences, all of them."""

    def read_preference(self, record: Record, bad_rows: BadRows) -> Preference:
        """The question and the answers of a record. Raises ``BadRecord`` with the reason that there are none."""
        return self._accounted(record, bad_rows, self._preference)

    def _recognised(self, fields: Fields, question: str | None) -> Shape:
        return preference_shape(fields if question is None else {**fields, "prompt": question})

    def _messages(
        self, shape: Shape, fields: Fields, used: set[str], account: RecordAccount
    ) -> tuple[list[Message], list[bool | None]]:
        """The messages of one answer; earlier exchanges, which ``history`` holds, are part of what it answers."""
        messages, weights = super()._messages(shape, fields, used, account)
        return messages, [*[None] * (len(weights) - 1), weights[-1]] if shape.kind == "pair" else weights

    def _answer_count(self, fields: Fields) -> int:
        return answers_in(fields)

    def _preference(self, record: Record, account: RecordAccount) -> Preference:
        """The better and the worse answer are built as records of their own, so that both have the question and all that goes with it."""
        fields, used = self._named(record, account)
        shape = self._shape(record.fields, fields, used)
        is_good = judgement(fields, shape)
        if is_good is not None:
            question, answer, *_ = shape.fields
            kind = recognise(fields, "prompt").kind
            single = self._answer(kind, (question, answer), fields, used, record, account)
            self._finish(shape, fields, used, record, account)
            return Preference(single if is_good else None, None if is_good else single)
        parted = AnswerParting(self._reader).part(fields, shape)
        if shape.fields[0] not in (CHOSEN, *parted.used):
            used.discard(shape.fields[0])
        account.unused += parted.unused
        chosen, rejected = self._answers(parted, used, record, account)
        form = Preference(chosen, rejected, margin(fields))
        used.add("margin")
        self._finish(shape, fields, used, record, account)
        return form

    def _answers(
        self, parted: PreferenceFields, used: set[str], record: Record, account: RecordAccount
    ) -> tuple[Conversation | TextPair, ...]:
        """Both answers of a record behind their question; what is told of the record is told once."""
        fields = {name: value for name, value in parted.fields.items() if name not in THOUGHT_FIELDS}
        answers: list[Conversation | TextPair] = []
        for name in (CHOSEN, REJECTED):
            of_one = RecordAccount()
            answers.append(self._answer(parted.kind, (parted.question, name), fields, used, record, of_one))
            account.unlearnt += of_one.unlearnt
            account.unused += of_one.unused
            account.notices += [
                notice for notice in of_one.notices if notice not in account.notices or notice.reason == END_TOKEN
            ]
            if name == CHOSEN:
                account.counts = of_one.counts
        fronts = [item.messages[: item.learnt.index(True)] for item in answers if isinstance(item, Conversation)]
        if fronts and list(fronts[0]) != list(fronts[1]):
            raise BadRecord("the first answers that may be learnt do not follow the same messages")
        return tuple(answers)

    def _answer(
        self, kind: Kind, names: tuple[str, str], fields: Fields, used: set[str], record: Record, account: RecordAccount
    ) -> Conversation | TextPair:
        form = self._built(Shape(kind, names), fields, used, record, account)
        assert not isinstance(form, Document)
        return form
