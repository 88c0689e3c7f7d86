"""A checkpoint in the forms that others read: a PEFT adapter, a merged model, or one ``.ckpt`` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.card.facts import CardFacts
from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import read_verified, tree_size
from pitstop.checkpointing.disk.strict_json import parse_json
from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.configs.errors import RunError
from pitstop.trainers.machine.device import choose_precision
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.foreign_code import forget_code
from pitstop.trainers.models.templates import tokenizer_of
from pitstop.trainers.models.trained import parameter_counts
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.building import BaseOnDisk
from pitstop.trainers.training.chosen import ChosenCheckpoint, find_base
from pitstop.trainers.using import merging
from pitstop.trainers.using.ckpt import ckpt_content
from pitstop.trainers.using.export_card import Facts, export_card, facts_of
from pitstop.trainers.using.export_files import MARKER, check_room, check_target, in_place_of, write_json
from pitstop.trainers.using.opened import for_inference

ADAPTER, MERGED, CKPT = FORMATS = ("adapter", "merged", "ckpt")
_SMALL_FILES = 64 << 20  # tokenizer, card and what else is beside the weights


@dataclass(frozen=True)
class ExportRequest:
    """``base_id``: what an adapter shall name as its base instead of what the run was told."""

    target: Path
    form: str  # one of FORMATS
    max_shard_size: str = "5GB"
    base_id: str | None = None
    force: bool = False


def export(chosen: ChosenCheckpoint, request: ExportRequest, reporter: Reporter) -> dict[str, Any]:
    """Write the export and return what it is: form, path, size, run and, of a merged model, how it compares.

    It appears whole or not at all. Raises ``SettingsError`` for a place that cannot be used, ``ResourceError`` as the disk says,
    ``ModelError`` and ``CheckpointError`` for a base or checkpoint that cannot.
    """
    check_target(request.target, chosen.run.path, directory=request.form != CKPT, force=request.force)
    facts = facts_of(chosen)
    make = {ADAPTER: _export_adapter, MERGED: _export_merged, CKPT: _export_ckpt}[request.form]
    more = make(chosen, request, facts, reporter)
    return {"format": request.form, "path": str(request.target), "size_bytes": tree_size(request.target), **facts, **more}


def _base(chosen: ChosenCheckpoint, reporter: Reporter) -> BaseOnDisk:
    settings = for_inference(chosen.settings, on_cuda=False)
    return find_base(chosen, choose_precision(settings, torch.device("cpu")), reporter.notice)


def base_on_hub(facts: Facts, asked: str | None) -> str | None:
    """The id under which others find the base; None where all that is known is a directory of this machine."""
    if asked is not None:
        return asked
    metadata = Metadata({"base_model": facts["base_model"]})
    return CardFacts(repo="", name="", settings=facts["settings"], metadata=metadata).base_on_hub


# adapter ---------------------------------------------------------------------------------------------------------------


def _export_adapter(chosen: ChosenCheckpoint, request: ExportRequest, facts: Facts, reporter: Reporter) -> dict[str, Any]:
    if chosen.settings.training.all_weights:
        raise RunError(
            f"{chosen.run.label} has no adapter: all weights of its model were trained.", hint="--format merged writes the model."
        )
    check_room(request.target, chosen.info.manifest.files[layout.ADAPTER_WEIGHTS].size + _SMALL_FILES)
    base_id = base_on_hub(facts, request.base_id)
    config = parse_json(read_verified(chosen.info, layout.ADAPTER_CONFIG))
    if base_id is None:
        reporter.warn(
            f"The base was a directory of this machine: adapter_config.json calls it {config['base_model_name_or_path']}. "
            "--base-id gives an id that others can load."
        )
    else:
        revision = chosen.known_base.revision if chosen.known_base and request.base_id is None else None
        config |= {"base_model_name_or_path": base_id, **({"revision": revision} if revision else {})}
    tokenizer = None if chosen.settings.training.makes_images else tokenizer_of(chosen.settings, _base(chosen, reporter).path)
    with in_place_of(request.target) as directory:
        directory.mkdir()
        (directory / layout.ADAPTER_WEIGHTS).write_bytes(read_verified(chosen.info, layout.ADAPTER_WEIGHTS))
        write_json(directory / layout.ADAPTER_CONFIG, config)
        _write_rest(directory, facts, tokenizer, base_id, merged=False)
    return {"base_id": base_id}


def _write_rest(directory: Path, facts: Facts, tokenizer: Any, base_id: str | None, *, merged: bool) -> None:
    """Tokenizer, card, and the facts for programs."""
    if tokenizer is not None:
        forget_code(tokenizer)
        with quiet_libraries():
            tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(export_card(facts, base_id, merged=merged), encoding="utf-8")
    write_json(directory / MARKER, {"format": MERGED if merged else ADAPTER, **facts})


# merged ----------------------------------------------------------------------------------------------------------------


def _export_merged(chosen: ChosenCheckpoint, request: ExportRequest, facts: Facts, reporter: Reporter) -> dict[str, Any]:
    base = _base(chosen, reporter)
    if chosen.settings.training.makes_images:
        return _export_merged_denoiser(chosen, base, request, facts, reporter)
    tokenizer = tokenizer_of(chosen.settings, base.path)
    ids = merging.probe_ids(chosen, tokenizer)
    reporter.line("Loading the base and its adapter …")
    adapted, precision = merging.open_for_merging(chosen, base)
    _, parameters = parameter_counts(adapted)
    check_room(request.target, 2 * parameters + _SMALL_FILES)
    wanted = merging.logits(adapted, ids, precision)
    with in_place_of(request.target) as directory:
        directory.mkdir()
        reporter.line("Merging and writing …")
        merging.save(merging.merge(adapted), directory, request.max_shard_size)
        del adapted  # before the merged model is loaded
        _write_rest(directory, facts, tokenizer, base_on_hub(facts, request.base_id), merged=True)
        reporter.line("Comparing the merged model with base and adapter …")
        difference = merging.compare_saved(directory, ids, wanted, precision)
    return {"difference": asdict(difference), "parameters": parameters}


def _export_merged_denoiser(
    chosen: ChosenCheckpoint, base: BaseOnDisk, request: ExportRequest, facts: Facts, reporter: Reporter
) -> dict[str, Any]:
    from pitstop.trainers.tasks.diffusion import merging as denoisers

    adapted, _ = merging.open_for_merging(chosen, base)
    _, parameters = parameter_counts(adapted)
    check_room(request.target, 4 * parameters + _SMALL_FILES)
    with in_place_of(request.target) as directory:
        reporter.line("Merging and writing …")
        difference = denoisers.merge_into(adapted, directory)
        _write_rest(directory, facts, None, base_on_hub(facts, request.base_id), merged=True)
    return {"image_difference": difference, "parameters": parameters}


# ckpt ------------------------------------------------------------------------------------------------------------------


def _export_ckpt(chosen: ChosenCheckpoint, request: ExportRequest, facts: Facts, reporter: Reporter) -> dict[str, Any]:
    del reporter
    check_room(request.target, chosen.info.size + _SMALL_FILES)
    content = ckpt_content(chosen, facts)
    with in_place_of(request.target) as file:
        # Tensors, numbers and texts alone, which `torch.load(weights_only=True)` reads. Pitstop never reads such a file itself.
        torch.save(content, file)
    return {"keys": sorted(content)}


def as_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of ``export`` with the settings left out: they are in the export."""
    content: dict[str, Any] = json.loads(json.dumps({key: value for key, value in result.items() if key != "settings"}))
    return content
