"""Where a base model comes from: a local directory, the demo model in the cache, or a pinned revision on the Hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.checkpointing.base_models import file_sha256
from pitstop.configs.errors import ModelError
from pitstop.configs.schema import Settings
from pitstop.trainers.models.demo_model import DEMO_MODEL_ID, demo_model_path
from pitstop.trainers.models.foreign_code import check_source

WEIGHTS = "*.safetensors"
HUB_PATTERNS = [WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True)
class ModelSource:
    """A base model on this machine's disk, and what identifies it."""

    model_id: str  # as the user gave it
    path: Path
    revision: str | None  # commit hash, for models from the Hub

    def digest(self, recipe: dict[str, Any]) -> str:
        """SHA-256 over the weight files, the config and ``recipe`` (how the weights are stored for training)."""
        digest = hashlib.sha256()
        files = sorted([*self.path.glob(WEIGHTS), self.path / "config.json"])
        for file in files:
            # Resolved: in the Hub's cache every file is a link.
            digest.update(f"{file.name} {file_sha256(file.resolve())}\n".encode())
        digest.update(repr(sorted(recipe.items())).encode())
        return digest.hexdigest()


def find_model(settings: Settings) -> ModelSource:
    """Locate the base model, downloading it from the Hub if need be.

    Raises ``ModelError`` for a path or id that does not exist, needs a token, cannot be reached, has no safetensors
    weights, or needs code of its own.
    """
    model_id = settings.model.id
    assert model_id is not None, "settings are loaded with require_model_and_data"
    local = Path(model_id).expanduser()
    if local.is_dir():
        return _checked(ModelSource(model_id, local.resolve(), None))
    if model_id == DEMO_MODEL_ID and (cached := demo_model_path()) is not None:
        return _checked(ModelSource(model_id, cached, None))
    if not _looks_like_hub_id(model_id):
        raise ModelError(
            f"No base model at {model_id}: no such directory.",
            hint="Give a directory with config.json and *.safetensors, or a Hub id such as HuggingFaceTB/SmolLM2-135M-Instruct.",
        )
    path = _download(model_id, settings)
    return _checked(ModelSource(model_id, path, path.name))


def _looks_like_hub_id(model_id: str) -> bool:
    return not model_id.startswith((".", "~", "/")) and model_id.count("/") <= 1 and "\\" not in model_id


def _checked(source: ModelSource) -> ModelSource:
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
    return source


def _download(model_id: str, settings: Settings) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = settings.hub.token.get_secret_value() if settings.hub.token else None
    try:
        return Path(
            snapshot_download(
                model_id, revision=settings.model.revision, allow_patterns=HUB_PATTERNS, ignore_patterns=["*/*"], token=token
            )
        )
    except HFValidationError as error:
        raise ModelError(f"{model_id!r} is neither a directory nor a valid Hub id.", hint="A Hub id reads owner/name.") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{model_id} is gated: the Hub wants you to accept its licence.",
            hint="Accept it on the model's page on the Hub, then set HF_TOKEN to a token of that account.",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{model_id} has no revision {settings.model.revision!r}.", hint="Give a commit hash, tag or branch of it."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"No such model: {model_id} is neither a directory here nor a model on the Hub (or it is private).",
            hint="Check the spelling; for a private model set HF_TOKEN.",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        advice = "Check the network (HF_HUB_OFFLINE, proxies), or give a local directory."
        if model_id == DEMO_MODEL_ID:
            advice = "Run 'pitstop fetch-demo' once: it puts the demo model into the cache. " + advice
        raise ModelError(f"Cannot fetch {model_id} from the Hub, and it is not a directory here.", hint=advice) from error
