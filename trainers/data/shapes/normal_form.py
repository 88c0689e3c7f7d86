"""From the fields of a record to its normal form, with an account of all that is not used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.notices import Notice
from pitstop.configs.record_fields import parse_columns, parse_roles
from pitstop.trainers.data.chat.conversation import Conversation, Document, Form, Message, TextPair
from pitstop.trainers.data.chat.template import NO_TEMPLATE
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.shapes.control_tokens import ControlTokens
from pitstop.trainers.data.shapes.messages import (
    NOT_LAST,
    THOUGHT_FIELDS,
    UNANSWERED,
    WEIGHTLESS,
    MessageReader,
    RecordAccount,
    learnt_answers,
    tell_calls,
)
from pitstop.trainers.data.shapes.paths import ColumnMapping, FieldPath, Fields, PromptTemplate, is_absent
from pitstop.trainers.data.shapes.recognition import ANSWER_FIELDS, MESSAGE_FIELDS, Shape, recognise, with_question
from pitstop.trainers.data.shapes.roles import ASSISTANT, CALL, DEVELOPER, SYSTEM, USER, known_roles
from pitstop.trainers.data.shapes.tools import from_json_text, tools_of, without_nulls

UNUSED = "{count} [record has|records have] a field {subject} that is not used"
OTHERS_UNUSED = "{count} [field|fields] of other names [is|are] not used"
LIKE_CONVERSATIONS = "{count} of {total} texts [looks|look] like [a rendered conversation|rendered conversations]; [its|their] questions are learnt too"
NO_SUCH_FIELD = ": no record has a field {subject}; there are: "
OWN_SYSTEM = "{count} [record keeps its|records keep their] own system message"
CONTROL = "{count} [record holds|records hold] control tokens in a message"
END_TOKEN = "{count} [answer ends|answers end] in the template's end token, which is there once more and is taken off"
NULLS = "{count} [record has|records have] null keys in tools or calls, which are left out"
SHAPES = {
    "messages": "messages",
    "lists": "question and answer",
    "pair": "question and answer",
    "text": "text",
    "preference": "preferences",
}

_SYSTEM_FIELDS = ("system", "system_prompt")
_TOOL_FIELDS = ("tools", "functions")
_CONTEXT_FIELDS = ("input", "context")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_EXTRAS = frozenset((*_SYSTEM_FIELDS, *_TOOL_FIELDS, *_MEDIA, "documents", "chat_template_kwargs"))
_LISTS = (*MESSAGE_FIELDS, "prompt", "completion", "chosen", "rejected")
_MOST_NAMES = 200
_WITH_OWN_SYSTEM, _LIKE_CONVERSATION = "own system", "like a conversation"
_PAIR, _PAIR_WITHOUT_SPACE = "pair", "pair without space"
_PLAIN_PAIR: dict[str, None] = {"prompt": None, "completion": None}

Read = TypeVar("Read")


@dataclass(frozen=True)
class ShapeOptions:
    """The settings of shapes; see ``configs.data_settings``."""

    columns: Mapping[str, str] = field(default_factory=dict)
    shape: str = "auto"
    roles: Mapping[str, str] = field(default_factory=dict)
    prompt_template: str | None = None
    system_prompt: str | None = None
    learn: str = "all"
    group_by: str | None = None

    @classmethod
    def of(cls, data: DataSettings) -> ShapeOptions:
        """Those of the settings. Raises ``SettingsError``."""
        return cls(
            parse_columns(data.columns),
            data.shape,
            parse_roles(data.roles),
            data.prompt_template,
            data.system_prompt,
            data.learn,
            data.group_by,
        )


class NoTemplate(BadRecord):
    """Messages, and no chat template: no record of this shape can be used."""


class NormalForm:
    """Reads records. ``template`` is the source of the chat template, None where the tokenizer has none.

    ``control`` finds special tokens, ``end_token`` gives the one that the template puts behind an answer. What there is to tell goes to
    the ``BadRows`` of the data set, some of it when ``conclude`` is called behind the last record.
    """

    def __init__(
        self,
        options: ShapeOptions,
        template: str | None,
        *,
        control: ControlTokens | None = None,
        end_token: Callable[[], str] = lambda: "",
    ) -> None:
        self._options, self._template = options, template
        self._control, self._end_token = control or ControlTokens(()), end_token
        self._marks = self._control.named_in(template or "")
        self._reader = MessageReader(known_roles(template or "", options.roles), template or "")
        self._is_plain = replace(options, learn="all", roles={}) in (ShapeOptions(), ShapeOptions(shape="prompt"))
        self._columns = ColumnMapping(options.columns)
        self._group = FieldPath(options.group_by) if options.group_by else None
        self._question = PromptTemplate(options.prompt_template) if options.prompt_template else None
        self._begin()

    def _begin(self) -> None:
        self._names: dict[str, None] = {}
        self._mapped_names: dict[str, None] = {}
        self._unused: dict[str, Notice] = {}
        self._shapes: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def read(self, record: Record, bad_rows: BadRows) -> Form:
        """The normal form of a record. Raises ``BadRecord`` with the reason that there is none."""
        if self._is_plain and (pair := self._plain_pair(record.fields)) is not None:
            return pair
        return self._accounted(record, bad_rows, self._form)

    def _accounted(self, record: Record, bad_rows: BadRows, read: Callable[[Record, RecordAccount], Read]) -> Read:
        account = RecordAccount()
        if not record.fields.keys() <= self._names.keys():
            self._names.update(dict.fromkeys(record.fields))
        try:
            form = read(record, account)
        except BadRecord as error:
            error.answers = self._answer_count(record.fields)
            raise
        for notice in account.unlearnt:
            # That an answer is context is what the record says, or the settings: no loss.
            is_loss = notice.reason not in (WEIGHTLESS, NOT_LAST)
            bad_rows.leave_out_answers(replace(notice, place=record.place, loss=is_loss))
        for notice in account.notices:
            bad_rows.notices.add(replace(notice, place=record.place + notice.place))
        for name in dict.fromkeys(account.unused):
            self._count_unused(name, record.place)
        self._count(account.counts)
        return form

    def _plain_pair(self, fields: Fields) -> Form | None:
        """The commonest record in a third of the time: a question and its answer of which there is nothing to tell."""
        if fields.keys() != _PLAIN_PAIR.keys():
            return None
        prompt, completion = fields["prompt"], fields["completion"]
        if not isinstance(prompt, str) or not isinstance(completion, str) or not prompt or not completion.strip():
            return None
        if self._control.first_in(completion) or (self._template is not None and self._control.first_in(prompt)):
            return None
        self._names |= _PLAIN_PAIR
        self._shapes[SHAPES["pair"]] += 1
        if self._template is None:
            self._count(_pair_counts(prompt, completion))
            return TextPair(prompt, completion)
        return Conversation(
            [{"role": USER, "content": prompt}, {"role": ASSISTANT, "content": completion}], [False, True], [], [], {}
        )

    def conclude(self, bad_rows: BadRows) -> None:
        """Tell what is known behind the last record of a data set; the next record begins another."""
        if len(self._shapes) > 1:
            parts = ", ".join(f"{count:,} {name}" for name, count in self._shapes.items())
            bad_rows.notices.add(Notice(f"The records are {parts}", count=sum(self._shapes.values())))
        for notice in self._unused.values():
            bad_rows.notices.add(notice)
        counts, documents = self._counts, self._shapes[SHAPES["text"]]
        if own := counts[_WITH_OWN_SYSTEM]:
            remedy = f"The system prompt of the settings is in the other {self._shapes.total() - documents - own:,}."
            bad_rows.notices.add(Notice(OWN_SYSTEM, count=own, remedy=remedy))
        if counts[_PAIR_WITHOUT_SPACE] * 2 > counts[_PAIR]:
            bad_rows.notices.add(
                Notice(
                    f"In {{count}} of {counts[_PAIR]:,} records the answer follows its question without a space or line break",
                    count=counts[_PAIR_WITHOUT_SPACE],
                    loss=True,
                )
            )
        if counts[_LIKE_CONVERSATION] * 2 > documents:
            reason = LIKE_CONVERSATIONS.replace("{total}", f"{documents:,}")
            remedy = "Give them as messages, of which the answers alone are learnt."
            bad_rows.notices.add(Notice(reason, count=counts[_LIKE_CONVERSATION], remedy=remedy, loss=True))
        names = ", ".join(list(self._names)[:20])
        for setting, name in self._missing_fields() if names else ():
            bad_rows.notices.add(Notice(f"{setting}{NO_SUCH_FIELD}{names}", f"'{name}'", loss=True))
        self._begin()

    def _missing_fields(self) -> list[tuple[str, str]]:
        """The fields that settings name and no record had, each behind the setting."""
        missing = [("--column", path.text) for path in self._columns.paths.values() if not path.leads_into(self._names)]
        if self._question is not None:
            names = self._names | self._mapped_names
            missing += [("--prompt-template", path.text) for path in self._question.paths if not path.leads_into(names)]
        if self._group is not None and not self._group.leads_into(self._names):
            missing.append(("--group-by", self._group.text))
        return missing

    def shape(self, record: Record) -> str:
        """The fields that decide how a record is read, such as ``prompt+completion``; empty where there are none."""
        try:
            fields = self._columns.apply(record.fields)[0] if self._options.columns else dict(record.fields)
            return str(self._shape(record.fields, fields, set()))
        except BadRecord:
            return ""

    def group(self, record: Record) -> str:
        """What the record is held out together by: the value of the field of ``--group-by``; empty where there is none."""
        value = None if self._group is None else self._group.value_in(record.fields)
        return "" if is_absent(value) else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    def _count(self, names: Iterable[str]) -> None:
        for name in names:  # of one or two, where Counter.update takes twice as long
            self._counts[name] += 1

    def _count_unused(self, name: str, place: str) -> None:
        is_other = name not in self._unused and len(self._unused) >= _MOST_NAMES
        key = OTHERS_UNUSED if is_other else name
        earlier = self._unused.get(key)
        if earlier is not None:
            self._unused[key] = replace(earlier, count=earlier.count + 1)
        else:
            self._unused[key] = Notice(OTHERS_UNUSED, place=place) if is_other else Notice(UNUSED, f'"{name}"', place=place)

    # Fields --------------------------------------------------------------------------------------------------------------

    def _form(self, record: Record, account: RecordAccount) -> Form:
        fields, used = self._named(record, account)
        shape = self._shape(record.fields, fields, used)
        form = self._built(shape, fields, used, record, account)
        self._finish(shape, fields, used, record, account)
        return form

    def _named(self, record: Record, account: RecordAccount) -> tuple[dict[str, Any], set[str]]:
        """The fields of a record by the names that they are read by, and a set for those that are used."""
        fields, used = dict(record.fields), set[str]()
        if self._options.columns:
            fields, overridden = self._columns.apply(record.fields)
            account.unused += overridden
            self._mapped_names |= dict.fromkeys(fields)
        for name in () if _EXTRAS.isdisjoint(fields) else _MEDIA:
            if name in fields and fields[name] not in (None, "", []):
                raise BadRecord(
                    f"it has a field '{name}', and Pitstop trains on text", hint="--skip-bad-rows leaves such records out."
                )
        if self._question is not None and not is_absent(fields.get("prompt")):
            account.unused += {"prompt"} - {*self._question.names_in({**record.fields, **fields})}
        return fields, used

    def _finish(self, shape: Shape, fields: Fields, used: set[str], record: Record, account: RecordAccount) -> None:
        if self._group is not None and self._group.leads_into(record.fields):
            used.add(self._group.name_in(record.fields))
        account.unused += [name for name, value in fields.items() if name not in used and not is_absent(value)]
        self._shapes[SHAPES[shape.kind]] += 1

    def _shape(self, original: Fields, fields: dict[str, Any], used: set[str]) -> Shape:
        """The shape, where a template makes the question with that question put into ``fields``."""
        if self._question is not None:
            combined = {**original, **fields}
            text = self._question.question(combined)
            used.update(self._question.names_in(combined))
            shape = self._recognised(fields, text)
            fields["prompt"] = text
            used.add("prompt")
        else:
            try:
                shape = self._recognised(fields, None)
            except BadRecord as error:
                missing = self._columns.missing_in(original)
                absence = f"; --column names {', '.join(map(repr, missing))}, which it does not have" if missing else ""
                raise BadRecord(f"{error}{absence}", hint=error.hint) from None
        used.update(shape.fields)
        return shape

    def _recognised(self, fields: Fields, question: str | None) -> Shape:
        """The shape of a record; a ``question`` that a template makes is to be its field ``prompt``. Raises ``BadRecord``."""
        return recognise(fields, self._options.shape) if question is None else with_question(fields, "prompt")

    def _built(self, shape: Shape, fields: Fields, used: set[str], record: Record, account: RecordAccount) -> Form:
        if shape.kind == "text":
            text = _text(fields["text"], "text")
            if self._marks.first_in(text):
                account.counts.append(_LIKE_CONVERSATION)
            return Document(text)
        extras = {} if _EXTRAS.isdisjoint(fields) else _extras(fields, used)
        if shape.kind == "pair" and self._template is None:
            return self._text_pair(shape, fields, used, extras, account)
        if self._template is None:
            raise NoTemplate(NO_TEMPLATE)
        if record.fills_nulls:
            fields, extras = _without_filled_nulls(fields, extras, account)
        messages, weights = self._messages(shape, fields, used, account)
        messages, weights = self._with_system(messages, weights, extras.get("system"), account)
        tell_calls(messages, account)
        return self._conversation(messages, weights, extras, account)

    def _text_pair(
        self, shape: Shape, fields: Fields, used: set[str], fields_for_templates: Iterable[str], account: RecordAccount
    ) -> TextPair:
        """Question and answer as they stand; an instruction has its frame. Raises ``BadRecord`` where more is to be said."""
        extras = [*fields_for_templates, *(name for name in ("history", *THOUGHT_FIELDS) if not is_absent(fields.get(name)))]
        extras += ["--system-prompt"] if self._options.system_prompt else []
        if extras:
            raise BadRecord(f"the model's tokenizer has no chat template, and '{extras[0]}' needs one")
        question, answer = shape.fields
        prompt, completion = _text(fields[question], question), _text(fields[answer], answer)
        if not completion.strip() or self._control.first_in(completion) == completion.strip():
            raise BadRecord("the completion is empty")  # an end token alone would teach to stop at once
        context = self._context(shape, fields, used)
        if question == "instruction":
            framed = f"\n\n### Input:\n{context}" if context else ""
            return TextPair(f"### Instruction:\n{prompt}{framed}\n\n### Response:\n", completion)
        prompt = "\n\n".join(text for text in (prompt, context) if text)
        account.counts += _pair_counts(prompt, completion)
        return TextPair(prompt, completion)

    def _context(self, shape: Shape, fields: Fields, used: set[str]) -> str:
        """What stands behind an instruction or a question."""
        if shape.fields[0] not in ("instruction", "question"):
            return ""
        names = [name for name in _CONTEXT_FIELDS if not is_absent(fields.get(name))]
        if len(names) > 1:
            raise BadRecord("has both 'input' and 'context'", hint="Leave one out: --column context=")
        used.update(names)
        return _text(fields[names[0]], names[0]) if names else ""

    def _answer_count(self, fields: Fields) -> int:
        """How many answers a malformed record has."""
        return _answers_in(fields)

    # Messages ------------------------------------------------------------------------------------------------------------

    def _messages(
        self, shape: Shape, fields: Fields, used: set[str], account: RecordAccount
    ) -> tuple[list[Message], list[bool | None]]:
        """The messages of a record, and which of them may be learnt."""
        if shape.kind == "messages":
            return self._reader.read(fields[shape.fields[0]], shape.fields[0], account)
        if shape.kind == "lists":
            return self._joined_lists(shape, fields, account)
        question, answer = shape.fields
        prompt = "\n\n".join(text for text in (_text(fields[question], question), self._context(shape, fields, used)) if text)
        history = self._history(fields, used)
        completion = _text(fields[answer], answer)
        if not history and not completion.strip():
            raise BadRecord("the completion is empty")
        last: dict[str, Any] = {"role": ASSISTANT, "content": completion}
        if thought := _first_of(fields, THOUGHT_FIELDS, used):
            last["reasoning_content"] = _text(thought, "reasoning_content")
        messages = [*history, {"role": USER, "content": prompt}, last]
        return messages, [True] * len(messages)

    def _history(self, fields: Fields, used: set[str]) -> list[Message]:
        used.add("history")
        exchanges = [] if is_absent(fields.get("history")) else from_json_text(fields["history"], "history")
        messages: list[Message] = []
        for exchange in exchanges if isinstance(exchanges, list) else [None]:
            if not isinstance(exchange, list) or len(exchange) != 2 or not all(isinstance(text, str) for text in exchange):
                raise BadRecord("'history' is not a list of [question, answer]")
            messages += [{"role": USER, "content": exchange[0]}, {"role": ASSISTANT, "content": exchange[1]}]
        return messages

    def _joined_lists(self, shape: Shape, fields: Fields, account: RecordAccount) -> tuple[list[Message], list[bool | None]]:
        for name, another in (shape.fields, shape.fields[::-1]):
            if isinstance(fields[another], str):
                raise BadRecord(f"'{name}' is a list of messages and '{another}' is text", hint="Give both in one form.")
        prompt, _ = self._reader.read(fields[shape.fields[0]], shape.fields[0], account)
        completion, weights = self._reader.read(fields[shape.fields[1]], shape.fields[1], account)
        if prompt[-1]["role"] == ASSISTANT:
            raise BadRecord("the prompt ends with an answer")
        return [*prompt, *completion], [None] * len(prompt) + weights

    def _with_system(
        self, messages: list[Message], weights: list[bool | None], system: Any, account: RecordAccount
    ) -> tuple[list[Message], list[bool | None]]:
        """The messages with the record's ``system`` in front, or that of the settings."""
        system_texts = [message.get("content", "") for message in messages if message["role"] in (SYSTEM, DEVELOPER)]
        text = "" if is_absent(system) else _text(system, "system")
        if text and system_texts and any(content.strip() != text.strip() for content in system_texts):
            raise BadRecord(
                "has a system message and a field 'system' that says something else", hint="Leave one out: --column system="
            )
        if not text and not system_texts:
            text = self._options.system_prompt or ""
        elif self._options.system_prompt:
            account.counts.append(_WITH_OWN_SYSTEM)
        if not text or system_texts:
            return messages, weights
        return [{"role": SYSTEM, "content": text}, *messages], [None, *weights]

    def _conversation(
        self, messages: list[Message], weights: list[bool | None], extras: Mapping[str, Any], account: RecordAccount
    ) -> Conversation:
        last = max((number for number, message in enumerate(messages) if message["role"] == ASSISTANT), default=-1)
        if last < 0:
            raise BadRecord("no answer to learn")
        if last + 1 < len(messages):
            account.notices.append(Notice(UNANSWERED, loss=True))
        messages = self._without_end_tokens(messages[: last + 1], account)  # an answer that was nothing else is empty
        learnt = learnt_answers(messages, weights[: last + 1], account, only_last=self._options.learn == "last")
        if not any(learnt):
            raise BadRecord("no answer to learn")
        last = max(number for number, learn in enumerate(learnt) if learn)
        documents = _listed(extras["documents"], "documents") if "documents" in extras else []
        if documents and "documents" not in (self._template or ""):
            raise BadRecord(
                "the chat template does not render documents", hint="--column documents= learns the answers without them."
            )
        return Conversation(
            messages[: last + 1],
            learnt[: last + 1],
            tools_of(extras["tools"]) if "tools" in extras else [],
            documents,
            _object(extras["chat_template_kwargs"], "chat_template_kwargs") if "chat_template_kwargs" in extras else {},
        )

    def _without_end_tokens(self, messages: Sequence[Message], account: RecordAccount) -> list[Message]:
        """Answers without the end token that the template writes anyway; other special tokens are told."""
        result = list(messages)
        control = None
        for number, message in enumerate(messages):
            text = message.get("content", "")
            token = self._control.first_in(text)
            if token is not None and message["role"] == ASSISTANT and text.rstrip().endswith(end := self._end_token()):
                text = text.rstrip().removesuffix(end)
                account.notices.append(Notice(END_TOKEN))
                result[number] = {**message, "content": text}
                token = self._control.first_in(text)
            control = control or token
        if control is not None:
            account.notices.append(Notice(CONTROL, place=f": {control!r}", loss=True))
        return result


def _first_of(fields: Fields, names: Sequence[str], used: set[str]) -> Any:
    """The value of the one of ``names`` that the record has. Raises ``BadRecord`` for two with different values."""
    present = [name for name in names if name in fields and not is_absent(fields[name])]
    if not present:
        return None
    if any(fields[name] != fields[present[0]] for name in present):
        named = " and ".join(f"'{name}'" for name in present)
        raise BadRecord(f"has {named}, which say different things", hint=f"Leave one out: --column {present[-1]}=")
    used.update(present)
    return fields[present[0]]


def _pair_counts(prompt: str, completion: str) -> list[str]:
    is_apart = not prompt or prompt[-1].isspace() or completion[0].isspace()
    return [_PAIR] if is_apart else [_PAIR, _PAIR_WITHOUT_SPACE]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRecord(f"'{name}' is not text but {type(value).__name__}")
    return value


def _listed(value: Any, name: str) -> list[Any]:
    parsed = from_json_text(value, name)
    if not isinstance(parsed, list):
        raise BadRecord(f"'{name}' is not a list")
    return parsed


def _object(value: Any, name: str) -> Mapping[str, Any]:
    parsed = from_json_text(value, name)
    if not isinstance(parsed, Mapping):
        raise BadRecord(f"'{name}' is not an object")
    return parsed


def _extras(fields: Fields, used: set[str]) -> dict[str, Any]:
    """What a record has beside its messages for the chat template."""
    named = {
        "system": _SYSTEM_FIELDS,
        "tools": _TOOL_FIELDS,
        "documents": ("documents",),
        "chat_template_kwargs": ("chat_template_kwargs",),
    }
    extras = {name: _first_of(fields, names, used) for name, names in named.items()}
    return {name: value for name, value in extras.items() if value not in (None, [], {}, "[]", "{}")}


def _without_filled_nulls(fields: Fields, extras: Mapping[str, Any], account: RecordAccount) -> tuple[Fields, dict[str, Any]]:
    """The lists of messages and the tools of a row of a table without the keys that are null; of tools and calls that is told."""
    cleaned = {name: without_nulls(value) if name in _LISTS else value for name, value in fields.items()}
    tools = extras.get("tools")
    cleared_tools = without_nulls(tools)
    pairs = [(tools, cleared_tools), *zip(_calls(fields), _calls(cleaned), strict=False)]
    if any(original != cleared for original, cleared in pairs):
        account.notices.append(Notice(NULLS, remedy="A null that was meant cannot be told apart; give tools as JSON text."))
    return cleaned, {**extras, "tools": cleared_tools} if tools else dict(extras)


def _calls(fields: Fields) -> list[Any]:
    lists = [fields[name] for name in _LISTS if isinstance(fields.get(name), list)]
    return [message.get("tool_calls") for messages in lists for message in messages if isinstance(message, Mapping)]


def _answers_in(fields: Fields) -> int:
    """How many answers a malformed record has, as far as that can be told."""
    for name in MESSAGE_FIELDS:
        if isinstance(fields.get(name), list):
            roles = known_roles("", {})
            named = [message.get("role", message.get("from")) for message in fields[name] if isinstance(message, Mapping)]
            return sum(isinstance(role, str) and roles.get(role.casefold()) in (ASSISTANT, CALL) for role in named)
    return int(any(isinstance(fields.get(name), str | list) for name in ANSWER_FIELDS))
