"""Whether the files of a checkpoint say what Pitstop would have written, before anything is built or changed after them.

Hashes tell damage from what was committed. A manifest can be forged along with the files, though, and a pulled checkpoint was
written by someone else: so its files must be the ones that a checkpoint has, each of the right form, and agree with each
other, with the manifest and with the run. Everything that does not is a ``CheckpointError`` that names the file.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout, strict_json, tensor_headers
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.store import file_sets, model_files
from pitstop.configs.errors import CheckpointError
from pitstop.configs.leaves import ENABLED, Leaf, by_path, groups, values_in
from pitstop.configs.values import InvalidValue, parse

_STATE_KEYS = {"format_version", "global_step", "epoch", "progress", "settings", "environment", "scaler"}
_OPTIMIZER_KEYS = {"class", "groups", "scalars", "tensors"}
_SCALER_KEYS = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
_STEP_SUFFIX = "::step"
_HINT = "resume from another checkpoint of the run with --checkpoint, or copy this one again from where it came from"

Fixed = Callable[[str], bool]


def check_checkpoint(info: CheckpointInfo, config: Mapping[str, Any], fixed: Fixed) -> dict[str, Any]:
    """The content of a verified checkpoint's trainer_state.json, once all files are found to be what they must be.

    ``config`` is the run's config.json, with which those settings must agree that ``fixed`` says can never change.
    """
    form = file_sets.form_of(config)
    try:
        _check_names(info, form)
        content = _check_state(info, config, fixed)
        if form.full_model:
            model_files.check_model(info.path, info.manifest.files.keys())
        else:
            _check_adapter(info, content["settings"])
        if form.ema:
            _check_average(info, form)
        _check_optimizer(info, content["scaler"] is not None)
    except CheckpointError as error:
        raise CheckpointError(error.message, hint=error.hint or _HINT) from None
    return content


def _check_names(info: CheckpointInfo, form: file_sets.Form) -> None:
    missing, foreign = form.problems(info.manifest.files.keys(), info.manifest.world_size)
    if missing:
        raise CheckpointError(f"{info.path}: {', '.join(missing[:5])} is missing")
    if foreign:
        raise CheckpointError(
            f"{info.path}: {', '.join(foreign[:5])} is not a file of a checkpoint, so the checkpoint is not read"
        )


def _check_state(info: CheckpointInfo, config: Mapping[str, Any], fixed: Fixed) -> dict[str, Any]:
    path = info.path / layout.TRAINER_STATE
    content = strict_json.read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object is expected")
    version = content.get("format_version")
    if type(version) is int and version > layout.STATE_VERSION:
        raise CheckpointError(f"{path}: written in format {reprlib.repr(version)}; this version reads {layout.STATE_VERSION}")
    if version != layout.STATE_VERSION or type(version) is not int:
        raise CheckpointError(f"{path}: it has no format version")
    if missing := sorted(_STATE_KEYS - content.keys()):
        raise CheckpointError(f"{path}: {', '.join(missing)} is missing")
    if unknown := sorted(content.keys() - _STATE_KEYS):
        raise CheckpointError(f"{path}: {reprlib.repr(unknown[0])} is not part of a training state")
    progress = content["progress"] if isinstance(content["progress"], dict) else {}
    for name, value in (("global_step", content["global_step"]), ("progress.step", progress.get("step"))):
        if type(value) is not int or value != info.step:
            raise CheckpointError(f"{path}: {name} is {reprlib.repr(value)}, the manifest says step {info.step}")
    epoch = progress.get("epoch")
    if type(epoch) is not int or content["epoch"] != epoch or not epoch <= info.epoch <= epoch + 1:
        raise CheckpointError(f"{path}: epoch {reprlib.repr(epoch)} does not go with the manifest's {info.epoch}")
    _check_environment(path, content["environment"])
    _check_scaler(path, content["scaler"])
    check_settings(content["settings"], str(path), config, fixed)
    return content


def _check_environment(path: Path, environment: Any) -> None:
    versions = environment.get("versions") if isinstance(environment, dict) else None
    if not isinstance(versions, dict) or not all(isinstance(version, str) for version in versions.values()):
        raise CheckpointError(f"{path}: it does not say what it was saved with")
    if not all(value is None or type(value) in (str, int, float) for key, value in environment.items() if key != "versions"):
        raise CheckpointError(f"{path}: it does not say what it was saved with")


def _check_scaler(path: Path, scaler: Any) -> None:
    if scaler is None or scaler == {}:
        return
    fits = isinstance(scaler, dict) and scaler.keys() == _SCALER_KEYS
    fits = fits and all(type(value) in (int, float) and 0 <= value < 1e300 for value in scaler.values())
    if not fits or scaler["scale"] == 0 or any(type(scaler[key]) is not int for key in ("growth_interval", "_growth_tracker")):
        raise CheckpointError(f"{path}: {reprlib.repr(scaler)} is not the state of a loss scaler")


def check_settings(settings: Any, place: str, config: Mapping[str, Any] | None = None, fixed: Fixed | None = None) -> None:
    """Settings in a file of a run: known ones, each of the type that is written, and no secrets. ``CheckpointError``.

    With ``config`` (config.json) they must also be as many, and the ``fixed`` ones equal.
    """
    values = _values(settings, place)
    for path, value in values.items():
        check_setting(by_path()[path], value, place)
    if config is None:
        return
    for path, value in _values(config, layout.CONFIG).items():
        if path == ENABLED.path:  # earlier versions wrote it
            continue
        if path not in values:
            raise CheckpointError(f"{place}: the setting {path} is missing")
        if fixed is not None and fixed(path) and values[path] != value:
            raise CheckpointError(
                f"{place}: {path} is {reprlib.repr(values[path])}, the run was started with {reprlib.repr(value)} ({layout.CONFIG})"
            )


def _values(settings: Any, place: str) -> dict[str, Any]:
    def refusal(path: str) -> CheckpointError:
        return CheckpointError(
            f"{place}: {path} holds no settings" if path in groups() else f"{place}: {reprlib.repr(path)} is not a setting"
        )

    if not isinstance(settings, Mapping):
        raise CheckpointError(f"{place}: it holds no settings")
    return dict(values_in(settings, refusal))


def check_setting(leaf: Leaf, value: Any, place: str) -> None:
    """One setting as ``settings_to_dict`` writes it. ``CheckpointError``."""
    if leaf.secret:
        raise CheckpointError(f"{place}: {leaf.path} is a secret, which no run may hold", hint="remove it there")
    if not _written_as(leaf, value):
        raise CheckpointError(f"{place}: {leaf.path} is {reprlib.repr(value)}")
    try:
        parse(leaf, value)
    except InvalidValue as error:
        raise CheckpointError(f"{place}: {leaf.path}: {error}") from None


def _written_as(leaf: Leaf, value: Any) -> bool:
    if value is None:
        return leaf.optional
    if leaf.kind == "list":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    types = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,), "choice": (str,)}
    return type(value) in types[leaf.kind]


def _check_adapter(info: CheckpointInfo, settings: Mapping[str, Any]) -> None:
    path = info.path / layout.ADAPTER_CONFIG
    config = strict_json.read_json(path)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: a JSON object is expected")
    base, model = config.get("base_model_name_or_path"), settings.get("model", {}).get("id")
    if base != model:
        raise CheckpointError(
            f"{path}: it is for the base {reprlib.repr(base)}, the checkpoint was trained on {reprlib.repr(model)}"
        )
    tensor_headers.read_header(info.path / layout.ADAPTER_WEIGHTS)


def _check_average(info: CheckpointInfo, form: file_sets.Form) -> None:
    """The average must be of the weights: the same tensors, each of the same type and shape."""
    trained = {
        name: (entry.dtype, entry.shape)
        for file in form.weights(info.manifest.files.keys())
        for name, entry in tensor_headers.read_header(info.path / file).items()
    }
    average = {name: (entry.dtype, entry.shape) for name, entry in tensor_headers.read_header(info.path / file_sets.EMA).items()}
    if different := sorted(name for name in trained.keys() | average.keys() if trained.get(name) != average.get(name)):
        raise CheckpointError(
            f"{info.path / file_sets.EMA} does not match the weights: {different[0][:200]} has another type or shape, or is in only one of the two"
        )


def _check_optimizer(info: CheckpointInfo, scaled: bool) -> None:
    """The form of the optimizer's files, and that its own count of steps is one that the run can have taken."""
    path, weights = info.path / layout.OPTIMIZER_META, info.path / layout.OPTIMIZER
    meta = check_optimizer_meta(strict_json.read_json(path), path)
    entries = tensor_headers.read_header(weights)
    if sorted(entries) != meta["tensors"]:
        raise CheckpointError(f"{weights} does not hold the tensors that {layout.OPTIMIZER_META} lists.")
    if info.step > 0 and not entries and not scaled:  # a loss scale that is too large makes the optimizer leave out steps
        raise CheckpointError(f"{weights}: no optimizer state at step {info.step}")
    for name, entry in entries.items():
        if name.endswith(_STEP_SUFFIX):
            _check_step(tensor_headers.read_scalar(weights, entry), f"{weights}: {name}", info.step)
    for name, values in meta["scalars"].items():
        _check_step(values.get("step", 0), f"{path}: step of {name}", info.step)


def check_optimizer_meta(meta: Any, path: Path) -> dict[str, Any]:
    """The content of optimizer.json if that is what it must be. ``CheckpointError``."""
    if not isinstance(meta, dict) or meta.keys() != _OPTIMIZER_KEYS or not isinstance(meta["class"], str):
        raise CheckpointError(f"{path} does not describe an optimizer.")
    tensors, scalars, parts = meta["tensors"], meta["scalars"], meta["groups"]
    fits = isinstance(tensors, list) and all(isinstance(name, str) for name in tensors)
    fits = fits and isinstance(scalars, dict) and all(isinstance(values, dict) for values in scalars.values())
    if not fits or not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise CheckpointError(f"{path} does not describe an optimizer.")
    return meta


def _check_step(value: Any, place: str, last_step: int) -> None:
    number = value if type(value) in (int, float) else math.nan
    if not 0 <= number <= last_step or number != int(number):
        raise CheckpointError(f"{place} is {reprlib.repr(value)}, the checkpoint is of step {last_step}")
