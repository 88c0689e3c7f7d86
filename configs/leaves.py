"""The schema as a flat list: one ``Leaf`` per setting, with everything that flags, files and help texts need to know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr

from pitstop.configs.schema import Group, Settings

Kind = Literal["bool", "int", "float", "str", "list", "choice", "secret"]

_LIMITS = ("ge", "gt", "le", "lt", "min_length")


@dataclass(frozen=True)
class Leaf:
    """One setting.

    ``path`` is the dotted YAML path, ``env`` the bare environment name, ``flag`` the long option ("" where the value
    must not stand on a command line), ``documented`` whether the bare environment name is read, ``annotation`` the
    declared type, ``kind`` and ``optional`` that type in one word, ``choices`` the allowed words of a choice,
    ``limits`` pydantic's limits by name (``ge``, ``lt``, …), ``group`` the title of the group it belongs to.
    """

    path: str
    env: str
    flag: str
    documented: bool
    annotation: Any
    kind: Kind
    optional: bool
    choices: tuple[str, ...]
    default: Any
    help: str
    limits: Mapping[str, Any]
    group: str

    @property
    def name(self) -> str:
        """Last part of the path: the YAML key."""
        return self.path.rpartition(".")[2]

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown or stored."""
        return self.kind == "secret"


@cache
def leaves() -> tuple[Leaf, ...]:
    """Every setting, in the order of the schema."""
    return tuple(_walk(Settings, "", "Settings"))


@cache
def by_path() -> dict[str, Leaf]:
    """Every setting by its dotted path."""
    return {leaf.path: leaf for leaf in leaves()}


@cache
def by_env() -> dict[str, Leaf]:
    """Every setting by its bare environment name."""
    return {leaf.env: leaf for leaf in leaves()}


@cache
def groups() -> frozenset[str]:
    """Dotted paths of the groups; "" is the top."""
    found = {""}
    for leaf in leaves():
        parent = leaf.path.rpartition(".")[0]
        while parent:
            found.add(parent)
            parent = parent.rpartition(".")[0]
    return frozenset(found)


def children(group: str) -> list[str]:
    """Names of the settings and groups directly inside ``group`` ("" is the top)."""
    prefix = f"{group}." if group else ""
    names = [leaf.path[len(prefix) :].partition(".")[0] for leaf in leaves() if leaf.path.startswith(prefix)]
    return list(dict.fromkeys(names))


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate most like ``word`` (case and ``-``/``_`` do not count), or None where nothing is close."""
    folded = {_fold(candidate): candidate for candidate in candidates}
    match = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=cutoff)
    return folded[match[0]] if match else None


def nearest_path(word: str, group: str = "", *, of_value: bool = False) -> str | None:
    """The dotted path that an unknown key in ``group`` was probably meant to be.

    Keys of the same group come first, then any group, and any setting by its key, its environment name or its flag, so that
    ``lora_rank: 8`` at the top of a file finds ``lora.rank``. With ``of_value`` the key has a plain value: where a group and a
    setting have one name (``rank``), the setting is meant.
    """
    sibling = nearest(word, children(group), cutoff=0.75)
    if sibling:
        return f"{group}.{sibling}" if group else sibling
    of_groups = [(name, path) for path in sorted(groups()) if path for name in (path, path.rpartition(".")[2])]
    of_leaves = [(name, leaf.path) for leaf in leaves() for name in (leaf.name, leaf.env, leaf.flag.lstrip("-"), leaf.path)]
    names: dict[str, str] = {}
    for name, path in (*of_leaves, *of_groups) if of_value else (*of_groups, *of_leaves):
        names.setdefault(_fold(name), path)
    match = nearest(word, names)
    return names[match] if match else None


def _fold(word: str) -> str:
    return word.lower().replace("-", "_").lstrip("_")


def _walk(group: type[Group], prefix: str, title: str) -> Iterator[Leaf]:
    for name, field in group.model_fields.items():
        path = f"{prefix}{name}"
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Group):
            yield from _walk(annotation, f"{path}.", path.rpartition(".")[2])
        else:
            yield _leaf(path, field, title)


def _leaf(path: str, field: Any, title: str) -> Leaf:
    kind, optional, choices = _classify(field.annotation)
    extra = field.json_schema_extra
    return Leaf(
        path=path,
        env=extra["env"],
        flag=extra["flag"],
        documented=extra["documented"],
        annotation=field.annotation,
        kind=kind,
        optional=optional,
        choices=choices,
        default=field.default,
        help=field.description,
        limits={key: getattr(item, key) for item in field.metadata for key in _LIMITS if hasattr(item, key)},
        group=title,
    )


def _classify(annotation: Any) -> tuple[Kind, bool, tuple[str, ...]]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not NoneType]
        kind, _, choices = _classify(inner[0])
        return kind, True, choices
    if origin is Literal:
        return "choice", False, get_args(annotation)
    if origin is list:
        return "list", False, ()
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "str", SecretStr: "secret"}
    return kinds[annotation], False, ()
