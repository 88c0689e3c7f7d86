"""The only place that merges the sources of settings.

Flags > process environment > ``.env`` > ``--config`` files (later wins) > defaults; on ``resume``, the run's own
settings and flags only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from pitstop.configs.errors import SettingsError
from pitstop.configs.files import read_config, read_preset
from pitstop.configs.leaves import ENABLED, Leaf, by_path, children, groups, leaves, nearest_path
from pitstop.configs.rules import IMAGE_TASK, Draft, check_complete, resolve
from pitstop.configs.schema import Settings
from pitstop.configs.secrets import mask
from pitstop.configs.sources import (
    DEFAULT,
    Given,
    Layer,
    Source,
    apply_foreign,
    default_env_file,
    read_env_file,
    read_environment,
)
from pitstop.configs.values import InvalidValue, describe, parse

__all__ = ["Leaf", "Loaded", "Source", "apply_foreign", "describe", "leaves", "load_settings", "settings_to_dict"]

DEMO = "demo"

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


def load_settings(
    *,
    flags: Mapping[str, Any] | None = None,
    config_files: Sequence[str] = (),
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    base: Mapping[str, Any] | None = None,
    base_name: str = "",
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
        base: settings of a run to resume, as ``settings_to_dict`` gave them. Only flags override them; the environment
            and ``.env`` give the access token alone.
        base_name: what to call ``base`` in messages, such as ``run_003/config.json``.
        require_model_and_data: refuse a model without data and data without a model.
        check_overridden: check values that a stronger source overrides, too.
        find_base_run: looks up what ``model.from_run`` means; without it that setting stays as it was given.

    Raises:
        SettingsError: an unknown name, a value out of range, an unreadable file, or settings that contradict each other.
    """
    layers = _resume_layers(base, base_name, config_files) if base is not None else _config_layers(config_files)
    outer = _outer_layers(env_file, os.environ if environ is None else environ)
    if base is not None:
        outer = [{path: given for path, given in layer.items() if by_path()[path].secret} for layer in outer]
    layers = [*layers, *outer, _flag_layer(flags or {})]
    if check_overridden:
        _check_all(layers)
    merged = _without_alias(_merge(layers))
    notes: list[str] = []
    if base is None and find_base_run is not None:
        merged = _stand_on_base_run(merged, find_base_run)
    if base is None and not _of_images(merged) and not any(_given(merged, path) for path in _NO_DEMO):
        merged = {**read_preset(DEMO), **{path: given for path, given in merged.items() if path not in (_MODEL, _DATA)}}
        notes.append(_demo_note())
    draft = _parse_all(merged)
    resolve(draft)
    if require_model_and_data:
        check_complete(draft)
    return Loaded(_build(Settings, draft.values), draft.sources, notes)


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """Settings as nested JSON-able values; secrets are left out, key and all."""
    nested: dict[str, Any] = {}
    for leaf in leaves():
        if not leaf.secret:
            value: Any = settings
            for part in leaf.path.split("."):
                value = getattr(value, part)
            _put(nested, leaf.path, list(value) if isinstance(value, list) else value)
    return nested


def _config_layers(config_files: Sequence[str]) -> list[Layer]:
    return [read_config(name) for name in config_files]


def _resume_layers(base: Mapping[str, Any], base_name: str, config_files: Sequence[str]) -> list[Layer]:
    if config_files:
        raise SettingsError(
            f"--config {config_files[0]}: a resumed run keeps its own settings.",
            hint="Give what should change as flags, for example --learning-rate 1e-5; or start a new run with 'pitstop train'.",
        )
    return [dict(_flatten(base, Source("run", base_name or "the run's settings")))]


def _outer_layers(env_file: Path | None, environ: Mapping[str, str]) -> list[Layer]:
    path = env_file or default_env_file()
    from_file = read_env_file(path, environ) if path else {}
    return [from_file, read_environment(environ)]


def _flag_layer(flags: Mapping[str, Any]) -> Layer:
    layer: Layer = {}
    for path, value in flags.items():
        leaf = by_path().get(path)
        if leaf is None:
            raise _unknown(path, "flags")
        where = leaf.flag.replace("--", "--no-", 1) if value is False else leaf.flag
        layer[path] = Given(value, Source("flag", where or path))
    return layer


def _flatten(nested: Mapping[str, Any], source: Source, group: str = "") -> Iterator[tuple[str, Given]]:
    for key, value in nested.items():
        path = f"{group}.{key}" if group else key
        if path in by_path():
            yield path, Given(value, source)
        elif path in groups() and isinstance(value, Mapping):
            yield from _flatten(value, source, path)
        else:
            raise _unknown(path, source.where)


def _unknown(path: str, where: str) -> SettingsError:
    group, _, key = path.rpartition(".")
    match = nearest_path(key, group if group in groups() and children(group) else "")
    hint = f"Did you mean {match}?" if match else "'pitstop config show' lists every setting."
    return SettingsError(f"{where}: {path} is not a setting.", hint=hint)


def _merge(layers: Sequence[Layer]) -> Layer:
    merged: Layer = {}
    for layer in layers:
        merged |= layer
    return merged


def _without_alias(merged: Layer) -> Layer:
    """``enabled: false`` is ``strategy: no``, unless a flag gives another strategy; ``enabled: true`` says nothing."""
    given = merged.pop(ENABLED.path, None)
    if given is None or _parse(ENABLED, given) or (_STRATEGY in merged and merged[_STRATEGY].source.kind == "flag"):
        return merged
    return {**merged, _STRATEGY: Given("no", given.source)}


def _check_all(layers: Sequence[Layer]) -> None:
    for layer in layers:
        for path, given in layer.items():
            _parse(by_path()[path], given)


def _given(merged: Layer, path: str) -> bool:
    return path in merged and bool(_parse(by_path()[path], merged[path]))


def _demo_note() -> str:
    return (
        "Neither a model nor data is set: using the preset 'demo' (SmolLM2-135M-Instruct on the shipped medical records). "
        "Set MODEL_ID and DATASET_PATH, or give --model-id and --dataset, to train your own."
    )


def _parse_all(merged: Layer) -> Draft:
    values, sources = {}, {}
    for leaf in leaves():
        given = merged.get(leaf.path)
        values[leaf.path] = leaf.default if given is None else _parse(leaf, given)
        sources[leaf.path] = DEFAULT if given is None else given.source
    return Draft(values, sources)


def _parse(leaf: Leaf, given: Given) -> Any:
    try:
        return parse(leaf, given.raw)
    except InvalidValue as error:
        raise SettingsError(f"{given.source.where}: {mask(str(error))}.", hint=f"{leaf.path}: {leaf.help}") from None


def _of_images(merged: Layer) -> bool:
    """Whether the task is one that the demo's model and data are not for."""
    return _TASK in merged and _parse(by_path()[_TASK], merged[_TASK]) == IMAGE_TASK


def _stand_on_base_run(merged: Layer, find: FindBaseRun) -> Layer:
    """Let the base training that ``model.from_run`` means give the model and, where nothing else does, the task."""
    if not _given(merged, _FROM_RUN):
        return merged
    given = merged[_FROM_RUN]
    if given.source.kind == "flag":  # what .env says of base trainings is not meant for what stands on one
        merged = {path: each for path, each in merged.items() if path not in (_CONFIG, _TOKENIZER) or each.source.kind == "flag"}
    if _given(merged, _MODEL) and merged[_MODEL].source.kind == given.source.kind == "flag":
        raise SettingsError(
            f"{given.source.where} and {merged[_MODEL].source.where} name two base models.", hint="Give one of the two."
        )
    directory = _parse(by_path()[_BASE_DIR], merged[_BASE_DIR]) if _BASE_DIR in merged else by_path()[_BASE_DIR].default
    found = find(directory, _parse(by_path()[_FROM_RUN], given))
    source = Source("base run", found.label)
    values = {path: Given(value, source) for path, value in found.values.items()}
    return {**values, **merged, _FROM_RUN: Given(found.reference, given.source), _MODEL: values[_MODEL]}


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


def _put(nested: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        nested = nested.setdefault(parent, {})
    nested[last] = value
