"""Settings and a moment → the name of a run and its Hub id. Pure: no clock, no disk, no network.

Every name is at most 96 characters of ``A-Z a-z 0-9 . _ -``, valid on the Hugging Face Hub and as a directory on Linux,
macOS and Windows. Schemes and template fields are described in ``docs/naming.md``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple

from pitstop.configs.datasets import DATA_SUFFIX, without_weight
from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import by_path, nearest
from pitstop.configs.load import settings_to_dict
from pitstop.configs.schema import Settings

MAX_LENGTH = 96

_PART_LENGTH = 10
_HASH_LENGTH = 8
_DERIVED = "{model}-{task}-r{rank}-a{alpha}-e{epochs}"
_DERIVED_FULL = "{model}-{task}-full-e{epochs}"  # all weights are trained: there is no rank
_PREFIX_FULL = "{model}-{task}-full"
_FIELD = re.compile(r"\{([^{}]*)\}")
_EXAMPLE = re.compile(r"example:([^/\\]+)")
# Directory names that Windows reserves, and names that would read as another run's number or directory.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|\d+|run_\d+|base_training|by-name", re.IGNORECASE)
_USERNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")


class Name(NamedTuple):
    """A run's name, and what the user should be told about it."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NameInputs:
    """Everything that a name is made of.

    ``model`` and ``task`` are already reduced to their short forms; ``digest`` is there where the name has a hash.
    """

    model: str
    task: str
    rank: int
    alpha: int
    epochs: int
    learning_rate: float
    method: str
    scheme: str
    prefix: str
    template: str | None
    experiment: str | None
    custom_id: str | None
    timestamp: bool
    short: bool
    with_hash: bool
    digest: str | None


def inputs_from(settings: Settings) -> NameInputs:
    """Pick what names are made of out of the settings."""
    naming, training, model = settings.naming, settings.training, settings.model
    model_name = model.id or ""
    if model.from_scratch and model.id == model.config:  # named after its configuration, a file
        model_name = model_name.removesuffix(".json")
    own_prefix = naming.prefix != by_path()["naming.prefix"].default
    hashed = naming.with_hash or "{hash}" in f"{naming.prefix}{naming.template}"
    return NameInputs(
        model=model_part(model_name),
        task=task_part(settings.data.label or (settings.data.train[0] if settings.data.train else None)),
        rank=settings.lora.rank,
        alpha=settings.lora.alpha,
        epochs=training.epochs,
        learning_rate=training.learning_rate,
        method=training.method or "qlora",
        scheme=naming.scheme,
        prefix=naming.prefix if own_prefix or not training.all_weights else _PREFIX_FULL,
        template=naming.template,
        experiment=naming.experiment_name,
        custom_id=naming.custom_id,
        timestamp=naming.timestamp,
        short=naming.short,
        with_hash=naming.with_hash,
        digest=settings_digest(settings) if hashed else None,
    )


def run_name(settings: Settings, start: datetime) -> Name:
    """The name of a run that begins at ``start``.

    Raises:
        SettingsError: a template or prefix with an unknown field or unbalanced braces.
    """
    return name_from(inputs_from(settings), start)


def name_from(inputs: NameInputs, start: datetime) -> Name:
    """The name for ``inputs`` at ``start``, shortened where it is too long (``shorten``).

    Raises:
        SettingsError: a template or prefix with an unknown field or unbalanced braces.
    """
    short = clean(_render(dataclasses.replace(inputs, short=True), start)) if inputs.timestamp else None
    return shorten(clean(_render(inputs, start)), short)


def shorten(name: str, with_short_timestamp: str | None = None) -> Name:
    """Bring a name down to 96 characters: first by the short timestamp, then by a hash in place of its tail."""
    if len(name) <= MAX_LENGTH:
        return Name(name)
    if with_short_timestamp is not None and len(with_short_timestamp) <= MAX_LENGTH:
        return Name(with_short_timestamp, (f"The name would be {len(name)} characters long; it got the short timestamp.",))
    text = _with_suffix(with_short_timestamp or name, f"-{_short_hash(name)}")
    return Name(text, (f"The name would be {len(name)} characters long (at most {MAX_LENGTH}); its end became a hash.",))


def unique(name: str, is_taken: Callable[[str], bool]) -> str:
    """``name``, or ``name-2``, ``name-3``, … : the first that is free. At most 96 characters."""
    if not is_taken(name):
        return name
    return next(text for number in count(2) if not is_taken(text := _with_suffix(name, f"-{number}")))


def hub_id(username: str | None, name: str) -> str:
    """``username/name``, valid by ``huggingface_hub.utils.validate_repo_id``.

    Raises:
        SettingsError: no user name, or one that the Hub cannot have.
    """
    if not username:
        raise SettingsError(
            "A Hub id needs a user name.", hint="Set HF_USERNAME or give --hf-username with your account or organisation."
        )
    if not _USERNAME.fullmatch(username) or "--" in username or ".." in username:
        raise SettingsError(
            f"HF_USERNAME '{username}' is not a Hub user name.",
            hint="It is the part after https://huggingface.co/ on your profile page: letters, digits and single dashes.",
        )
    return f"{username}/{name}"


class Scheme(NamedTuple):
    """One way to name a run: the inputs that it changes and the option that chooses it."""

    changes: Mapping[str, Any]
    option: str


SCHEMES: dict[str, Scheme] = {
    "derived": Scheme({"scheme": "derived", "template": None}, "--name-scheme derived"),
    "derived, no timestamp": Scheme({"scheme": "derived", "template": None, "timestamp": False}, "--no-timestamp"),
    "derived, short timestamp": Scheme({"scheme": "derived", "template": None, "short": True}, "--short"),
    "derived, with hash": Scheme({"scheme": "derived", "template": None, "with_hash": True}, "--with-hash"),
    "timestamped": Scheme({"scheme": "timestamped", "template": None}, "--name-scheme timestamped"),
    "timestamped, short": Scheme({"scheme": "timestamped", "template": None, "short": True}, "--name-scheme timestamped --short"),
}


def all_names(settings: Settings, start: datetime) -> dict[str, Name]:
    """The name by each scheme for a run that begins at ``start``; ``template`` is among them where one is set.

    Raises:
        SettingsError: as ``run_name``.
    """
    inputs = dataclasses.replace(inputs_from(settings), digest=settings_digest(settings))
    names = {key: name_from(dataclasses.replace(inputs, **scheme.changes), start) for key, scheme in SCHEMES.items()}
    if inputs.template:
        names["template"] = name_from(inputs, start)
    return names


def model_part(model_id: str | None) -> str:
    """First 10 letters and digits of the last part of a model id or path; "model" where there are none."""
    return _part(_last_part(model_id or ""), "model")


def task_part(dataset: str | None) -> str:
    """First 10 letters and digits of a data set's stem without ``dataset_``; "data" where there are none.

    A weight behind it (``a.jsonl:0.7``) is no part of it. For a shipped example (``example:medical_ner/train.jsonl``) the example's own name stands for the stem.
    """
    place = without_weight(dataset or "")
    example = _EXAMPLE.match(place)
    stem = example[1] if example else DATA_SUFFIX.sub("", _last_part(place).lower())
    return _part(stem.lower().removeprefix("dataset_"), "data")


def settings_digest(settings: Settings) -> str:
    """Eight hex digits that change with what is trained, and not with names, directories, accounts or retention."""
    values = settings_to_dict(settings)
    del values["naming"], values["hub"], values["training"]["checkpoint"]
    for key in ("cache", "cache_gb", "rendering"):  # where tokens lie changes none of them, and nobody chooses how they are made
        del values["data"][key]
    return _short_hash(json.dumps(values, sort_keys=True))


def clean(text: str) -> str:
    """Any text as a name of any length: other characters become ``-``, runs of ``-`` and ``.`` collapse, "" is "run"."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    name = re.sub(r"[-.]{2,}", "-", name).strip("-.") or "run"
    if name.lower().endswith(".git"):
        name = f"{name[:-4]}-{name[-3:]}"
    if _RESERVED.fullmatch(name):
        name = name.replace(".", "-", 1) if "." in name else f"{name}-run"
    return name


def _render(inputs: NameInputs, start: datetime) -> str:
    separator = "_" if inputs.scheme == "timestamped" and not inputs.template else "-"
    values = _values(inputs, _stamp(inputs, start, separator))
    values["prefix"] = _fill(inputs.prefix, {key: value for key, value in values.items() if key != "prefix"}, "naming.prefix")
    if inputs.template:
        lacks_hash = inputs.with_hash and "{hash}" not in inputs.template
        return _fill(inputs.template + "-{hash}" * lacks_hash, values, "naming.template")
    if inputs.scheme == "timestamped":
        parts = [values["prefix"], values["experiment"]]
    else:
        parts = [_fill(_DERIVED_FULL if inputs.method == "full" else _DERIVED, values, "")]
    parts += [values["hash"] if inputs.with_hash else "", values["timestamp"]]
    return "-".join(part for part in parts if part)


def _values(inputs: NameInputs, stamp: str) -> dict[str, str]:
    mantissa, exponent = f"{inputs.learning_rate:.6e}".split("e")
    return {
        "model": inputs.model,
        "task": inputs.task,
        "rank": str(inputs.rank),
        "alpha": str(inputs.alpha),
        "epochs": str(inputs.epochs),
        "lr": f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}",  # 5e-5: dots and signs as short as they can be
        "method": inputs.method,
        "experiment": inputs.experiment or "",
        "prefix": "",
        "timestamp": stamp,
        "hash": inputs.digest or "",
    }


def _stamp(inputs: NameInputs, start: datetime, separator: str) -> str:
    """CUSTOM_ID, the time of the start, or nothing. Not strftime: its %Y has no leading zeros on some systems."""
    if inputs.custom_id:
        return inputs.custom_id
    if not inputs.timestamp:
        return ""
    day, minute = f"{start.month:02d}{start.day:02d}", f"{start.hour:02d}{start.minute:02d}"
    return f"{day}_{minute}" if inputs.short else f"{start.year:04d}{day}{separator}{minute}{start.second:02d}"


def _fill(template: str, values: Mapping[str, str], setting: str) -> str:
    """Replace ``{field}``; nothing else of Python's format language, which would reach into objects."""
    text = _FIELD.sub("", template)
    if "{" in text or "}" in text:
        raise SettingsError(f"{setting} '{template}' has a brace without its partner.", hint="Write fields as {model}.")
    for field in _FIELD.findall(template):
        if field not in values:
            match = nearest(field, values)
            fields = ", ".join(f"{{{key}}}" for key in values)
            hint = (f"Did you mean {{{match}}}? " if match else "") + f"Fields: {fields}."
            raise SettingsError(f"{setting} '{template}': there is no field {{{field}}}.", hint=hint)
    return _FIELD.sub(lambda match: values[match[1]], template)


def _short_hash(text: str) -> str:
    import hashlib  # loads OpenSSL: not for every name

    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _part(text: str, fallback: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())[:_PART_LENGTH] or fallback


def _with_suffix(name: str, suffix: str) -> str:
    return name[: MAX_LENGTH - len(suffix)].rstrip("-.") + suffix
