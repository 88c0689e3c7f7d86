"""The schema as a flat list: one ``Leaf`` per setting, with everything that flags, files and help texts need to know."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache, reduce
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pitstop.configs.schema import Settings
from pitstop.configs.secrets import Secret
from pitstop.configs.setting import Limits

Kind = Literal["bool", "int", "float", "str", "list", "choice", "secret"]


@dataclass(frozen=True)
class Leaf:
    """One setting.

    ``path`` is the dotted YAML path, ``env`` the bare environment name, ``flag`` the long option ("" where the value
    must not stand on a command line), ``documented`` whether the bare environment name is read, ``kind`` and
    ``optional`` the declared type, ``choices`` the allowed words of a choice, ``group`` the title of its group, ``before`` what holds
    where a run of an earlier version has nothing on record.
    """

    path: str
    env: str
    flag: str
    documented: bool
    kind: Kind
    optional: bool
    choices: tuple[str, ...]
    default: Any
    help: str
    limits: Limits
    group: str
    before: Any = None

    @property
    def name(self) -> str:
        """Last part of the path: the YAML key."""
        return self.path.rpartition(".")[2]

    def value_in(self, settings: Settings) -> Any:
        """The value of the setting in ``settings``."""
        return reduce(getattr, self.path.split("."), settings)

    @property
    def is_set(self) -> bool:
        """Whether a user can set it; what nobody sets is recorded with the settings all the same."""
        return bool(self.env)

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown or stored."""
        return self.kind == "secret"


@cache
def _declared() -> tuple[Leaf, ...]:
    return tuple(_walk(Settings, "", "Settings"))


@cache
def leaves() -> tuple[Leaf, ...]:
    """Every setting, in the order of the schema."""
    return tuple(leaf for leaf in _declared() if leaf.is_set)


@cache
def recorded_leaves() -> tuple[Leaf, ...]:
    """What a run has on record beside its settings, and nobody sets."""
    return tuple(leaf for leaf in _declared() if not leaf.is_set)


ENABLED = Leaf(
    path="training.checkpoint.enabled",
    env="CHECKPOINT_ENABLED",
    flag="",
    documented=False,
    kind="bool",
    optional=False,
    choices=(),
    default=True,
    help="false is another way to write strategy: no.",
    limits={},
    group="checkpoint",
)
"""An alias of ``training.checkpoint.strategy``, from the source documents and earlier versions; ``load_settings`` resolves it."""


@cache
def by_path() -> dict[str, Leaf]:
    """Every setting, what is recorded beside them, and the alias by dotted path."""
    return {leaf.path: leaf for leaf in (*leaves(), *recorded_leaves(), ENABLED)}


def values_in(nested: Mapping[str, Any], refusal: Callable[[str], Exception], group: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested settings by dotted path. Raises what ``refusal`` makes of a path that is no setting or, of a group, no mapping."""
    for key, value in nested.items():
        path = f"{group}.{key}" if group else key
        if path in by_path():
            yield path, value
        elif path in groups() and path and isinstance(value, Mapping):
            yield from values_in(value, refusal, path)
        else:
            raise refusal(path)


@cache
def by_env() -> dict[str, Leaf]:
    """Every setting and the alias by bare environment name."""
    return {leaf.env: leaf for leaf in (*leaves(), ENABLED)}


@cache
def groups() -> frozenset[str]:
    """Dotted paths of the groups; "" is the top."""
    paths = {""}
    for leaf in leaves():
        parent = leaf.path.rpartition(".")[0]
        while parent:
            paths.add(parent)
            parent = parent.rpartition(".")[0]
    return frozenset(paths)


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


def _walk(group: Any, prefix: str, title: str) -> Iterator[Leaf]:
    annotations = get_type_hints(group)
    for item in fields(group):
        path, annotation = f"{prefix}{item.name}", annotations[item.name]
        if is_dataclass(annotation):
            yield from _walk(annotation, f"{path}.", item.name)
        else:
            yield _leaf(path, item, annotation, title)


def _leaf(path: str, item: Field[Any], annotation: Any, title: str) -> Leaf:
    kind, optional, choices = _classify(annotation)
    return Leaf(
        path=path,
        kind=kind,
        optional=optional,
        choices=choices,
        default=item.default if item.default_factory is MISSING else item.default_factory(),
        group=title,
        **item.metadata,
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
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "str", Secret: "secret"}
    return kinds[annotation], False, ()
