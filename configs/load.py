"""The only place that merges the sources of settings.

Flags > process environment > ``.env`` > ``--config`` files (later wins) > defaults; on ``resume``, the run's own
settings and flags only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from pitstop.configs.datasets import ENTRIES
from pitstop.configs.env_file import default_env_file
from pitstop.configs.errors import SettingsError
from pitstop.configs.files import read_config, read_preset
from pitstop.configs.leaves import ENABLED, by_path, children, groups, leaves, nearest_path, recorded_leaves, values_in
from pitstop.configs.notices import Notice
from pitstop.configs.rules import IMAGE_TASK, Draft, check_complete, resolve
from pitstop.configs.schema import Settings
from pitstop.configs.secrets import mask
from pitstop.configs.sources import DEFAULT, Layer, RawValue, Source, read_env_file, read_environment
from pitstop.configs.values import InvalidValue, parse

DEMO = "demo"
_DEMO_NOTE = (
    "Neither a model nor data is set: using the preset 'demo' (SmolLM2-135M-Instruct on the shipped medical records). "
    "Set MODEL_ID and DATASET_PATH, or give --model-id and --dataset, to train your own."
)

_MODEL, _DATA = "model.id", "data.train"
_FROM_RUN, _FROM_SCRATCH, _CONFIG, _TOKENIZER = "model.from_run", "model.from_scratch", "model.config", "model.tokenizer"
_BASE_DIR = "training.checkpoint.base_dir"
_NO_DEMO = (_MODEL, _DATA, _FROM_RUN, _FROM_SCRATCH)
_TASK, _STRATEGY = "training.task", "training.checkpoint.strategy"


@dataclass(frozen=True)
class BaseRun:
    """The checkpoint of a base training that ``model.from_run`` means.

    ``reference`` names it in a way that means the same one later, ``label`` its run, ``values`` are settings that follow from it.
    """

    reference: str
    label: str
    values: Mapping[str, Any]


FindBaseRun = Callable[[str, str], BaseRun]
"""Finds the base training that a reference means below a base directory. ``RunError``, ``CheckpointError``."""


@dataclass(frozen=True)
class Loaded:
    """Resolved settings, where each came from (dotted path → source), and what the user should be told."""

    settings: Settings
    sources: Mapping[str, Source]
    notes: list[str] = field(default_factory=list)

    def notices(self) -> list[Notice]:
        """``notes`` as what was decided on the user's behalf."""
        return [Notice(note.removesuffix(".")) for note in self.notes]


def load_settings(
    *,
    flags: Mapping[str, Any] | None = None,
    config_files: Sequence[str] = (),
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    require_model_and_data: bool = False,
    check_overridden: bool = False,
    find_base_run: FindBaseRun | None = None,
) -> Loaded:
    """Merge all sources into one checked ``Settings``.

    Args:
        flags: dotted path → value of the flags that were given.
        config_files: YAML files or names of shipped presets; a later one wins.
        env_file: the ``.env`` to read; None reads ``./.env`` if it exists.
        environ: the process environment; None is ``os.environ``.
        require_model_and_data: refuse a model without data and data without a model.
        check_overridden: check values that a stronger source overrides, too.
        find_base_run: looks up what ``model.from_run`` means; without it that setting stays as it was given.

    Raises:
        SettingsError: an unknown name, a value out of range, an unreadable file, or settings that contradict each other.
    """
    layers = [*(read_config(name) for name in config_files), *_environment_layers(env_file, environ), _flag_layer(flags or {})]
    if check_overridden:
        for layer in layers:
            for path in layer:
                _parse(path, layer)
    merged = _merge(layers)
    if find_base_run is not None:
        merged = _stand_on_base_run(merged, find_base_run)
    notes: list[str] = []
    # Nothing says what to train, and the task is one that the demo's model and data are for.
    if _parse(_TASK, merged) != IMAGE_TASK and not any(_parse(path, merged) for path in _NO_DEMO):
        merged = {**read_preset(DEMO), **{path: raw for path, raw in merged.items() if path not in (_MODEL, _DATA)}}
        notes.append(_DEMO_NOTE)
    draft = _resolved(merged)
    if require_model_and_data:
        check_complete(draft)
    return Loaded(_build(Settings, draft.values), draft.sources, notes)


def load_recorded(
    recorded: Mapping[str, Any],
    place: str = "the run's settings",
    *,
    flags: Mapping[str, Any] | None = None,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """The settings of a run from its record. Only flags override them; the environment and ``.env`` give the access token alone.

    Args:
        recorded: what ``settings_to_dict`` gave; what it lacks has its default, or what held before it was recorded.
        place: what to call it in messages, such as ``run_003/config.json``.
        flags: dotted path → value of the flags that were given.
        env_file: the ``.env`` to read; None reads ``./.env`` if it exists.
        environ: the process environment; None is ``os.environ``.

    Raises:
        SettingsError: as ``load_settings``.
    """
    tokens = [
        {path: raw for path, raw in layer.items() if by_path()[path].secret} for layer in _environment_layers(env_file, environ)
    ]
    earlier = {leaf.path: RawValue(leaf.before, DEFAULT) for leaf in (*leaves(), *recorded_leaves()) if leaf.before is not None}
    source = Source("run", place)
    layer = {path: RawValue(value, source) for path, value in values_in(recorded, lambda path: _unknown(path, place))}
    draft = _resolved(_merge([earlier, layer, *tokens, _flag_layer(flags or {})]))
    return Loaded(_build(Settings, draft.values), draft.sources)


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """Settings, and what is recorded beside them, as nested JSON-able values; secrets are left out, key and all."""
    nested: dict[str, Any] = {}
    for leaf in (*leaves(), *recorded_leaves()):
        if not leaf.secret:
            group = nested
            for name in leaf.path.split(".")[:-1]:
                group = group.setdefault(name, {})
            value = leaf.value_in(settings)
            group[leaf.name] = list(value) if isinstance(value, list) else value
    return nested


def _environment_layers(env_file: Path | None, environ: Mapping[str, str] | None) -> list[Layer]:
    """``.env``, then the process environment, which is stronger."""
    environ = os.environ if environ is None else environ
    path = env_file or default_env_file()
    return [read_env_file(path, environ) if path else {}, read_environment(environ)]


def _flag_layer(flags: Mapping[str, Any]) -> Layer:
    layer: Layer = {}
    for path, value in flags.items():
        leaf = by_path().get(path)
        if leaf is None or not leaf.is_set:
            raise _unknown(path, "flags")
        flag = leaf.flag.replace("--", "--no-", 1) if value is False else leaf.flag
        layer[path] = RawValue(value, Source("flag", flag or path))
    return layer


def _unknown(path: str, place: str) -> SettingsError:
    group, _, key = path.rpartition(".")
    match = nearest_path(key, group if group in groups() and children(group) else "")
    hint = f"Did you mean {match}?" if match else "'pitstop config show' lists every setting."
    return SettingsError(f"{place}: {path} is not a setting.", hint=hint)


def _merge(layers: Sequence[Layer]) -> Layer:
    """One layer, in which a later layer wins and the alias is resolved.

    ``enabled: false`` is ``strategy: no``, unless a flag gives another strategy; ``enabled: true`` says nothing.
    """
    merged: Layer = {}
    for layer in layers:
        merged |= layer
    if ENABLED.path not in merged:
        return merged
    is_enabled, source = _parse(ENABLED.path, merged), merged.pop(ENABLED.path).source
    if is_enabled or (_STRATEGY in merged and merged[_STRATEGY].source.kind == "flag"):
        return merged
    return {**merged, _STRATEGY: RawValue("no", source)}


def _parse(path: str, layer: Layer) -> Any:
    """The checked value of a setting; its default where the layer lacks it. ``SettingsError``."""
    leaf, raw = by_path()[path], layer.get(path)
    if raw is None:
        return leaf.default
    try:
        return parse(leaf, raw.value)
    except InvalidValue as error:
        raise SettingsError(f"{raw.source.place}: {mask(str(error))}.", hint=f"{leaf.path}: {leaf.help}") from None


def _resolved(merged: Layer) -> Draft:
    paths = [leaf.path for leaf in leaves()]
    draft = Draft(
        {path: _parse(path, merged) for path in (*paths, *(leaf.path for leaf in recorded_leaves()))},
        {path: merged[path].source if path in merged else DEFAULT for path in (*paths, *ENTRIES.values())},
    )
    resolve(draft)
    return draft


def _stand_on_base_run(merged: Layer, find: FindBaseRun) -> Layer:
    """Let the base training that ``model.from_run`` means give the model and, where nothing else does, the task."""
    reference = _parse(_FROM_RUN, merged)
    if not reference:
        return merged
    source = merged[_FROM_RUN].source
    if source.kind == "flag":  # what .env says of base trainings is not meant for what stands on one
        scratch = [path for path in (_CONFIG, _TOKENIZER) if path in merged and merged[path].source.kind != "flag"]
        merged = {path: raw for path, raw in merged.items() if path not in scratch}
    if _parse(_MODEL, merged) and merged[_MODEL].source.kind == source.kind == "flag":
        raise SettingsError(
            f"{source.place} and {merged[_MODEL].source.place} name two base models.", hint="Give one of the two."
        )
    base_run = find(_parse(_BASE_DIR, merged), reference)
    values = {path: RawValue(value, Source("base run", base_run.label)) for path, value in base_run.values.items()}
    return {**values, **merged, _FROM_RUN: RawValue(base_run.reference, source), _MODEL: values[_MODEL]}


def _build(group: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A group of settings from the checked values of all settings by dotted path."""
    return group(
        **{
            item.name: _build(item.default_factory, values, f"{prefix}{item.name}.")
            if is_dataclass(item.default_factory)
            else values[f"{prefix}{item.name}"]
            for item in fields(group)
        }
    )
