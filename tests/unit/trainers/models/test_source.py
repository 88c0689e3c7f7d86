"""Finding the base model without a network: what is there is found, what is not is named with what to do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pitstop.configs.errors import ModelError
from pitstop.configs.schema import HubSettings, ModelSettings, Settings
from pitstop.configs.secrets import Secret
from pitstop.trainers.models import source
from pitstop.trainers.models.demo_model import DEMO_MODEL_ID
from pitstop.trainers.models.source import KnownBase, ModelSource, find_model


def _settings(model_id: str, **model: str) -> Settings:
    return Settings(model=ModelSettings(id=model_id, **model))


def _error(model_id: str, **model: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        find_model(_settings(model_id, **model))
    return caught.value


def test_a_local_directory(tiny: Path) -> None:
    assert find_model(_settings(str(tiny))) == ModelSource(str(tiny), tiny.resolve(), None)


def test_a_relative_directory_that_looks_like_a_hub_id(tiny: Path) -> None:
    Path("owner").mkdir()
    Path("owner/name").symlink_to(tiny)
    assert find_model(_settings("owner/name")).path == tiny.resolve()


@pytest.mark.parametrize("model_id", ["./models/none", "/no/such/place", "~/none/such", "a/b/c", "models\\name"])
def test_a_missing_directory(model_id: str) -> None:
    error = _error(model_id)
    assert str(error) == f"No base model at {model_id}: no such directory."
    assert "config.json" in str(error.hint)


def test_a_directory_without_a_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert str(_error(str(tmp_path))) == f"{tmp_path} is not a model directory: it has no config.json."


def test_a_directory_with_pickled_weights_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    error = _error(str(tmp_path))
    assert str(error) == f"{tmp_path} has no safetensors weights."
    assert "save_pretrained" in str(error.hint)


@pytest.mark.parametrize("model_id", ["own er/name", "owner/na--me", "-owner/name", "owner/" + "n" * 100])
def test_what_can_be_no_hub_id(model_id: str) -> None:
    error = _error(model_id)
    assert str(error) == f"{model_id!r} is neither a directory nor a valid Hub id."


def test_the_hub_out_of_reach() -> None:
    error = _error("owner/no-such-model")
    assert str(error) == "Cannot fetch owner/no-such-model from the Hub, and it is not a directory here."
    assert "network" in str(error.hint) and "fetch-demo" not in str(error.hint)


def test_the_demo_model_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(source, "demo_model_path", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raising(OSError("offline")))
    assert "pitstop fetch-demo" in str(_error(DEMO_MODEL_ID).hint)


def test_the_demo_model_is_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr(source, "demo_model_path", lambda: tiny)
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raising(AssertionError("asked the Hub")))
    assert find_model(_settings(DEMO_MODEL_ID)).path == tiny


def test_a_download_takes_the_revision_and_the_token_and_no_pickle(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def download(model_id: str, **options: object) -> str:
        asked.append((model_id, options))
        return str(tiny)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    settings = Settings(model=ModelSettings(id="owner/name", revision="v1"), hub=HubSettings(token=Secret("hf_secret")))
    assert find_model(settings) == ModelSource("owner/name", tiny, tiny.name)
    [(model_id, options)] = asked
    assert (model_id, options["revision"], options["token"]) == ("owner/name", "v1", "hf_secret")
    assert not any(str(pattern).endswith((".bin", ".pt", ".py", "*")) for pattern in options["allow_patterns"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wanted", "known", "asked_for"),
    [
        (None, None, None),
        (None, KnownBase("1" * 40), "1" * 40),
        ("v1", KnownBase("1" * 40), "v1"),
    ],
)
def test_a_known_base_is_fetched_at_its_commit_unless_the_settings_name_one(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, wanted: str | None, known: KnownBase | None, asked_for: str | None
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _, revision, **options: asked.append(revision) or str(tiny))
    find_model(_settings("owner/name", revision=wanted), known)
    assert asked == [asked_for]


@pytest.mark.parametrize("model_id", ["tiny", "models/tiny"])
def test_for_a_known_directory_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch, model_id: str) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raising(AssertionError("asked the Hub")))
    with pytest.raises(ModelError, match="no such directory"):
        find_model(_settings(model_id), KnownBase(None))


def test_the_demo_model_is_fetched_where_the_first_machine_had_it_in_its_cache(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    monkeypatch.setattr(source, "demo_model_path", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **options: str(tiny))
    assert find_model(_settings(DEMO_MODEL_ID), KnownBase(None)).path == tiny


def test_a_commit_that_the_hub_has_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raising(_http("RevisionNotFoundError")))
    with pytest.raises(ModelError, match=f"owner/name has no revision '{'1' * 40}'") as caught:
        find_model(_settings("owner/name"), KnownBase("1" * 40))
    assert "--model-id PATH" in str(caught.value.hint) and "--allow-changed-base" in str(caught.value.hint)


def _raising(error: Exception) -> object:
    def download(*arguments: object, **options: object) -> str:
        raise error

    return download


def _http(kind: str) -> Exception:
    import huggingface_hub.errors

    error: Exception = getattr(huggingface_hub.errors, kind)("no", response=SimpleNamespace(headers={}, request=None))
    return error


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "owner/name is gated"),
        ("RevisionNotFoundError", "owner/name has no revision 'v1'"),
        ("RepositoryNotFoundError", "No such model: owner/name"),
        ("HfHubHTTPError", "Cannot fetch owner/name"),
    ],
)
def test_what_the_hub_answers(monkeypatch: pytest.MonkeyPatch, kind: str, message: str) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", _raising(_http(kind)))
    error = _error("owner/name", revision="v1")
    assert str(error).startswith(message) and error.hint


def _model(directory: Path, **files: str) -> ModelSource:
    directory.mkdir()
    for name, content in {"config.json": "{}", "model.safetensors": "weights", **files}.items():
        (directory / name).write_text(content)
    return ModelSource("m", directory, None)


def test_the_digest_follows_weights_config_and_recipe_and_nothing_else(tmp_path: Path) -> None:
    digest = _model(tmp_path / "a").digest({"dtype": "bfloat16"})
    assert _model(tmp_path / "b", **{"README.md": "other"}).digest({"dtype": "bfloat16"}) == digest
    changed = [
        _model(tmp_path / "c", **{"config.json": "{ }"}).digest({"dtype": "bfloat16"}),
        _model(tmp_path / "d", **{"model.safetensors": "other"}).digest({"dtype": "bfloat16"}),
        _model(tmp_path / "e", **{"more.safetensors": ""}).digest({"dtype": "bfloat16"}),
        _model(tmp_path / "f").digest({"dtype": "float16"}),
    ]
    assert len({digest, *changed}) == 5
