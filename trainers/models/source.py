"""Where a base model comes from: a local directory, the demo model in the cache, or a pinned revision on the Hub."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import file_sha256
from pitstop.checkpointing.runs.base_runs import BaseCheckpoint, find_base_checkpoint
from pitstop.checkpointing.store.model_files import pairs
from pitstop.configs.errors import CheckpointError, ModelError, RunError
from pitstop.configs.schema import Settings
from pitstop.trainers.machine.launch import rank
from pitstop.trainers.models.demo_model import DEMO_MODEL_ID, demo_model_path
from pitstop.trainers.models.foreign_code import check_source, check_stored, json_object, refuse_adapter
from pitstop.trainers.models.scratch import config_digest

WEIGHTS = "*.safetensors"
HUB_PATTERNS = [WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt"]


class NoModel(ModelError):
    """There is no base model at the place that was given."""


class QuantisedModel(ModelError):
    """The weights are stored quantised, by whatever library."""


@dataclass(frozen=True)
class KnownBase:
    """What a run recorded of its base: the commit on the Hub, or None for a directory."""

    revision: str | None


@dataclass(frozen=True)
class ModelSource:
    """A base model on this machine's disk, and what identifies it."""

    model_id: str  # as the user gave it
    path: Path
    revision: str | None  # commit hash, for models from the Hub
    is_copy: bool = False  # ``path`` is a run's own verified copy, in the form that is trained on
    config: Path | None = None  # of a model from scratch; ``path`` then holds the tokenizer
    seed: int = 0  # of its weights
    classes: int | None = None  # that it is told of, instead of as many as ``config`` says
    base_run: BaseCheckpoint | None = None  # ``path`` is a checkpoint of a base training

    def digest(self, recipe: dict[str, Any]) -> str:
        """SHA-256 over the weight files, the config and ``recipe`` (how the weights are stored for training)."""
        return hashlib.sha256(self._files + repr(sorted(recipe.items())).encode()).hexdigest()

    @functools.cached_property
    def _files(self) -> bytes:
        """Names and hashes of the files that make the base what it is; hashing a large one takes a while."""
        if self.config is not None:
            classes = b"" if self.classes is None else f"classes {self.classes}".encode()
            return config_digest(self.config, self.seed) + classes
        if self.base_run is not None:
            return "".join(f"{name} {digest}\n" for name, digest in self.base_run.model_hashes()).encode()
        files = sorted([*self.path.glob(WEIGHTS), self.path / "config.json"])
        # Resolved: in the Hub's cache every file is a link.
        return "".join(f"{file.name} {file_sha256(file.resolve())}\n" for file in files).encode()


def find_model(settings: Settings, recorded: KnownBase | None = None) -> ModelSource:
    """Locate the base model, downloading it from the Hub if need be.

    Of a ``recorded`` base the recorded commit is taken unless the settings name one, and for one that was a directory the Hub is
    not asked: there a model of its name would be another one. Raises ``NoModel`` for a path or id that does not exist or cannot
    be reached, ``ModelError`` for a model that needs a token, has no safetensors weights, is stored quantised, or needs code of its own.
    """
    model_id = settings.model.id
    assert model_id is not None, "settings are loaded with require_model_and_data"
    if settings.model.from_run is not None:
        return _of_base_training(model_id, settings)
    if settings.model.from_scratch:
        return _from_scratch(model_id, settings)
    local = Path(model_id).expanduser()
    if local.is_dir():
        return _checked(ModelSource(model_id, local.resolve(), None))
    if model_id == DEMO_MODEL_ID and (cached := demo_model_path()) is not None:
        return _checked(ModelSource(model_id, cached, None))
    was_directory = recorded is not None and recorded.revision is None and model_id != DEMO_MODEL_ID
    if was_directory or not _looks_like_hub_id(model_id):
        raise NoModel(
            f"No base model at {model_id}: no such directory.",
            hint="Give a directory with config.json and *.safetensors, or a Hub id such as HuggingFaceTB/SmolLM2-135M-Instruct.",
        )
    path = _download(model_id, settings, settings.model.revision or (recorded.revision if recorded else None))
    return _checked(ModelSource(model_id, path, path.name))


def find_tokenizer(settings: Settings) -> Path:
    """The directory of the tokenizer that training would use; no weights are downloaded or looked at. Raises as ``find_model``."""
    if settings.model.from_run is not None:
        return _of_base_training(str(settings.model.id), settings, verify=False).path
    tokenizer = str(settings.model.tokenizer if settings.model.from_scratch else settings.model.id)
    return tokenizer_files(tokenizer, settings, settings.model.revision)


def _of_base_training(model_id: str, settings: Settings, *, verify: bool = True) -> ModelSource:
    """The checkpoint of a base training, every byte verified unless the weights are not wanted. ``NoModel`` where there is no such run here."""
    reference = str(settings.model.from_run)
    try:
        checkpoint = find_base_checkpoint(settings.training.checkpoint.base_dir, reference)
    except RunError as error:
        raise NoModel(f"No base model: {error.message}", hint=error.hint) from error
    try:
        if verify and rank() == 0:
            checkpoint.verify()
        check_stored(checkpoint.path)
    except CheckpointError as error:
        raise ModelError(f"--from {reference}: {error.message}", hint=error.hint) from error
    return ModelSource(model_id, checkpoint.path, None, base_run=checkpoint)


def _from_scratch(model_id: str, settings: Settings) -> ModelSource:
    """The tokenizer's files and the configuration of a model whose weights are drawn from the seed."""
    config, tokenizer = Path(str(settings.model.config)).expanduser(), str(settings.model.tokenizer)
    if not config.is_file():
        raise ModelError(f"MODEL_CONFIG = {config}: no such file.", hint="Give a JSON file like the config.json of a model.")
    return ModelSource(
        model_id,
        tokenizer_files(tokenizer, settings, settings.model.revision),
        None,
        config=config.resolve(),
        seed=settings.training.seed,
    )


def tokenizer_files(tokenizer: str, settings: Settings, revision: str | None) -> Path:
    """The directory of a tokenizer that is one or is on the Hub, without weights. Raises ``NoModel``, and ``ModelError`` for code in it."""
    local = Path(tokenizer).expanduser()
    if local.is_dir():
        check_source(local.resolve())
        return local.resolve()
    if tokenizer == DEMO_MODEL_ID and (cached := demo_model_path()) is not None:
        return cached
    if not _looks_like_hub_id(tokenizer):
        raise NoModel(
            f"No tokenizer at {tokenizer}: no such directory.", hint="Give a directory with tokenizer.json, or a Hub id."
        )
    path = _download(tokenizer, settings, revision, [pattern for pattern in HUB_PATTERNS if pattern != WEIGHTS])
    check_source(path)
    return path


def _looks_like_hub_id(model_id: str) -> bool:
    return not model_id.startswith((".", "~", "/")) and model_id.count("/") <= 1 and "\\" not in model_id


def _checked(source: ModelSource) -> ModelSource:
    refuse_adapter(source.path)
    if not (source.path / "config.json").is_file():
        raise ModelError(
            f"{source.path} is not a model directory: it has no config.json.", hint="Give the directory that holds config.json."
        )
    if not any(source.path.glob(WEIGHTS)):
        raise ModelError(
            f"{source.model_id} has no safetensors weights.",
            hint="Pitstop reads no pickled weights (.bin, .pt). Convert them with transformers' save_pretrained, or take a revision that has safetensors.",
        )
    check_source(source.path)
    _refuse_quantised(source)
    return source


def _refuse_quantised(source: ModelSource) -> None:
    """What config.json says of a quantisation would win over method and settings without a word."""
    quantisation = next(
        (value for key, value in pairs(json_object(source.path / "config.json")) if key == "quantization_config" and value), None
    )
    if quantisation is None:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
    raise QuantisedModel(
        f"{source.model_id} is stored quantised ({str(method or 'quantization_config in config.json')[:80]}).",
        hint="Give the model that it was made from: --method qlora quantises that to 4 bits as the settings say, once for all runs.",
    )


def _download(model_id: str, settings: Settings, revision: str | None, patterns: Sequence[str] = HUB_PATTERNS) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = settings.hub.token_value
    try:
        return Path(
            snapshot_download(model_id, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"], token=token)
        )
    except HFValidationError as error:
        raise NoModel(
            f"{model_id!r} is neither a directory nor a valid Hub id.", hint="A Hub id has the form owner/name."
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"{model_id} is gated: the Hub wants you to accept its licence.",
            hint="Accept it on the model's page on the Hub, then set HF_TOKEN to a token of that account.",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{model_id} has no revision {revision!r}.",
            hint="Give a commit hash, tag or branch of it."
            if settings.model.revision
            else "The run was trained on that commit, which the Hub has no longer. --model-id PATH gives a directory that holds "
            "the same files, --allow-changed-base goes on with what the Hub has now.",
        ) from error
    except RepositoryNotFoundError as error:
        raise NoModel(
            f"No such model: {model_id} is neither a directory here nor a model on the Hub (or it is private).",
            hint="Check the spelling; for a private model set HF_TOKEN.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        advice = "Check the network (HF_HUB_OFFLINE, proxies), or give a local directory."
        if model_id == DEMO_MODEL_ID:
            advice = "Run 'pitstop fetch-demo' once: it puts the demo model into the cache. " + advice
        raise NoModel(f"Cannot fetch {model_id} from the Hub, and it is not a directory here.", hint=advice) from error
