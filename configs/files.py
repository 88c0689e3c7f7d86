"""Read ``--config`` files and shipped presets (YAML), remembering the line of each value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.configs.datasets import ENTRIES, OWN, split_entry
from pitstop.configs.env_file import read_text
from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import by_path, children, groups, nearest, nearest_path
from pitstop.configs.paths import PAIRS
from pitstop.configs.secrets import mask, remember
from pitstop.configs.sources import Kind, Layer, RawValue, Source

if TYPE_CHECKING:
    from yaml import MappingNode, Node

PRESETS = Path(__file__).parent / "presets"

_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}
_NULL = "tag:yaml.org,2002:null"


def preset_names() -> list[str]:
    """Names of the shipped presets, such as ``demo`` and ``training/lora_finetuning``."""
    return sorted(path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.yaml"))


def read_preset(name: str) -> Layer:
    """Settings of a shipped preset.

    Raises:
        SettingsError: there is no such preset.
    """
    if name not in preset_names():
        match = nearest(name, preset_names())
        raise SettingsError(
            f"--config {name}: there is neither a shipped preset nor a file of this name.",
            hint=(f"Did you mean {match}? " if match else "") + f"Shipped presets: {', '.join(preset_names())}.",
        )
    return _read(PRESETS / f"{name}.yaml", "preset", f"preset {name}")


def read_config(name: str) -> Layer:
    """Settings of a ``--config`` value: a file, or a shipped preset by its name, of which the last part will do.

    ``configs/training/lora_finetuning.yaml``, the path that the source documents use, means the shipped preset where no
    such file exists.

    Raises:
        SettingsError: nothing of this name, bad YAML, or a key that is not a setting.
    """
    path = Path(name).expanduser()
    presets, is_there = preset_names(), path.exists()
    if name in presets:
        return read_preset(name)
    alike = [preset for preset in presets if name in (preset.rpartition("/")[2], f"configs/{preset}.yaml")]
    if len(alike) == 1 and not is_there:
        return read_preset(alike[0])
    if path.suffix or is_there:
        return _read(path, "config", str(path))
    return read_preset(name)


def _read(path: Path, kind: Kind, place: str) -> Layer:
    from yaml import MappingNode

    root = _compose(path, place)
    if root is None:
        return {}
    if not isinstance(root, MappingNode):
        raise SettingsError(f"{place}: the file must hold 'key: value' lines.", hint="For example: lora: {rank: 8}")
    return _Walk(kind, place).mapping(root, "")


def _compose(path: Path, place: str) -> Node | None:
    """Parse without building objects: nodes know their lines, and no tag can construct anything."""
    import yaml

    text = read_text(path)
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{place}{line} is not valid YAML: {mask(error.problem or str(error))}.") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{place} is not valid YAML: {mask(str(error))}.") from None
    except RecursionError:
        raise SettingsError(f"{place}: lists and mappings are nested too deeply for settings.") from None


class _Walk:
    """Turns one YAML tree into a layer."""

    def __init__(self, kind: Kind, place: str) -> None:
        self.kind = kind
        self.place = place

    def mapping(self, node: MappingNode, group: str) -> Layer:
        from yaml import MappingNode

        layer: Layer = {}
        for key, line, value_node in self._items(node):
            path = f"{group}.{key}" if group else key
            if path in ENTRIES:
                layer |= self._entries(path, value_node, line)
            elif path in by_path() and by_path()[path].is_set:
                layer[path] = self._raw_value(path, value_node, line)
            elif path not in groups():
                raise self._unknown(key, group, line, of_value=not isinstance(value_node, MappingNode))
            elif isinstance(value_node, MappingNode):
                layer |= self.mapping(value_node, path)
            elif value_node.tag != _NULL:
                raise SettingsError(
                    f"{self._at(line)}: {path} is a group of settings, not a value.",
                    hint=f"It holds {', '.join(children(path))}; for example {path}: {{{children(path)[0]}: …}}",
                )
        return layer

    def _items(self, node: MappingNode) -> Iterator[tuple[str, int, Node]]:
        """The keys of a mapping, none of which may stand there twice, with their lines and values."""
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._key(key_node)
            if key in seen:
                raise SettingsError(
                    f"{self._at(line)}: {key} stands there already on line {seen[key]}.", hint="Delete one of the two."
                )
            seen[key] = line
            yield key, line, value_node

    def _key(self, node: Node) -> str:
        from yaml import ScalarNode

        if not isinstance(node, ScalarNode):
            raise SettingsError(f"{self._at(node.start_mark.line + 1)}: a key must be a word.")
        return str(node.value)

    def _raw_value(self, path: str, node: Node, line: int) -> RawValue:
        raw = self._value(path, node)
        if by_path()[path].secret and isinstance(raw, str):
            remember(raw.strip())
        return RawValue(raw, Source(self.kind, self._at(line)))

    def _entries(self, path: str, node: Node, line: int) -> Layer:
        """Data sets, some of which may be objects; what these have of their own goes beside."""
        from yaml import MappingNode, SequenceNode

        source = Source(self.kind, self._at(line))
        if not isinstance(node, SequenceNode) or not any(isinstance(item, MappingNode) for item in node.value):
            return {path: self._raw_value(path, node, line), ENTRIES[path]: RawValue([], source)}
        entries = [
            self._entry(path, item) if isinstance(item, MappingNode) else (self._text(path, item), "{}") for item in node.value
        ]
        texts, settings = zip(*entries, strict=True)
        return {path: RawValue(list(texts), source), ENTRIES[path]: RawValue(list(settings), source)}

    def _entry(self, path: str, node: MappingNode) -> tuple[str, str]:
        entry: dict[str, Any] = {}
        for key, _, value_node in self._items(node):
            entry[key] = self._value(f"data.{key}" if key in OWN else f"{path}.{key}", value_node)
        return split_entry(entry, self._at(node.start_mark.line + 1))

    def _text(self, path: str, node: Node) -> str:
        value = self._value(path, node)
        if isinstance(value, str) and value.strip():
            return value
        raise SettingsError(f"{self._at(node.start_mark.line + 1)}: {path} needs a place in each entry.")

    def _value(self, path: str, node: Node) -> str | list[str] | None:
        """Scalars stay text: ``strategy: no`` is the word, not YAML's false, and ``custom_id: 007`` keeps its zeros."""
        from yaml import MappingNode, ScalarNode, SequenceNode

        line = node.start_mark.line + 1
        if isinstance(node, ScalarNode):
            if node.tag not in _SCALARS:
                raise SettingsError(f"{self._at(line)}: {path} has a YAML tag ({node.tag}); write a plain value.")
            return None if node.tag == _NULL else str(node.value)
        if isinstance(node, SequenceNode) and all(isinstance(item, ScalarNode) and item.tag in _SCALARS for item in node.value):
            return [str(item.value) for item in node.value]
        if path in PAIRS and isinstance(node, MappingNode):
            return [self._pair(path, name, value) for name, _, value in self._items(node)]
        raise SettingsError(f"{self._at(line)}: {path} must be a value or a list of values.")

    def _pair(self, path: str, name: str, node: Node) -> str:
        value = self._value(path, node)
        if isinstance(value, list):
            raise SettingsError(
                f"{self._at(node.start_mark.line + 1)}: {path}.{name} must be a single value.",
                hint="Write one text or number behind each name.",
            )
        return f"{name}={value or ''}"

    def _unknown(self, key: str, group: str, line: int, *, of_value: bool) -> SettingsError:
        match = nearest_path(key, group, of_value=of_value)
        hint = f"Did you mean {match}?" if match else "'pitstop config show' lists every setting."
        return SettingsError(f"{self._at(line)}: {mask(key)} is not a setting{f' in {group}' if group else ''}.", hint=hint)

    def _at(self, line: int) -> str:
        return f"{self.place} line {line}"
