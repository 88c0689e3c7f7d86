"""Image models on the Hub: both stages go there, come back on an empty machine and go on exactly; a forged one is refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.forked import kill_at_step, pitstop
from support.hub import Hub
from support.hub.machine import Machine, copied
from support.image_training import NETWORK, OF_TREES, image_arguments, write_image_data
from support.repositories import fit_manifest
from support.training import WHOLE_FILES, assert_same_end, checkpoints

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]

PUSHING = {"push_to_hub": True, "hub_retry_s": 0.05, "push_timeout": 60}
BASE: dict[str, Any] = {"ema_decay": 0.8, "max_steps": 6, "save_steps": 2}
ADAPTER: dict[str, Any] = {**OF_TREES, "max_steps": 6, "save_steps": 2, "push_base": True}
STOPPED_AT = 4


@dataclass(frozen=True)
class Pushed:
    """Each stage trained twice in ``runs``: whole, and stopped at step 4; the latter were pushed to the repositories in ``hub``."""

    place: Path
    base: str
    adapter: str

    @property
    def hub(self) -> Path:
        return self.place / "hub"

    @property
    def images(self) -> Path:
        """The data, which is no longer where it was trained on."""
        return self.place / "one-is-gone/images"

    @property
    def runs(self) -> Path:
        return self.place / "one-is-gone/runs"


@pytest.fixture(scope="module")
def pushed(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    place = tmp_path_factory.mktemp("pushed")
    repos: list[str] = []
    with Hub(place / "hub") as hub:
        one = Machine(write_image_data(place / "one"), hub)
        for settings in (BASE, ADAPTER):
            ended = one.start(*image_arguments(one.home, one.runs, **settings)).wait(60)
            assert ended.code == 0, ended.output
            stop = kill_at_step(STOPPED_AT, signal.SIGTERM)
            ended = one.start(*image_arguments(one.home, one.runs, **settings, **PUSHING), prepare=stop).wait(120)
            assert ended.code == 143 and "not on the Hub yet" not in ended.output, ended.output
            (repo,) = {name for _, name in hub.store.repositories} - set(repos)
            repos.append(repo)
        one.vanish()
    return Pushed(place, *repos)


@pytest.fixture
def hub(pushed: Pushed, tmp_path: Path) -> Iterator[Hub]:
    with copied(pushed.hub, tmp_path / "hub") as running:
        yield running


@pytest.fixture
def other(hub: Hub, tmp_path: Path) -> Machine:
    """An empty machine."""
    machine = Machine(tmp_path / "other", hub)
    machine.home.mkdir()
    return machine


def test_a_base_training_goes_on_elsewhere_as_if_it_had_never_stopped(pushed: Pushed, hub: Hub, other: Machine) -> None:
    at_root = {path for path in hub.tree(pushed.base) if "/" not in path}
    assert {"config.json", "model.safetensors", "README.md"} <= at_root and "tokenizer.json" not in at_root
    ended = other.pitstop("resume", "--from-hub", pushed.base, "--dataset", pushed.images)
    assert ended.code == 0, ended.output
    run = other.runs / "base_training/run_001"
    assert_same_end(pushed.runs / "base_training/run_001", run, WHOLE_FILES)
    assert checkpoints(run) == ["checkpoint-4", "checkpoint-6"]
    best = (run / "checkpoints/best").resolve()
    assert hub.content(pushed.base, "model.safetensors") == (best / "ema.safetensors").read_bytes(), "what was judged is served"
    assert hub.content(pushed.base, "config.json") == (best / "config.json").read_bytes()


def test_an_adapter_goes_on_elsewhere_with_its_base(pushed: Pushed, hub: Hub, other: Machine) -> None:
    ended = other.pitstop("resume", "--from-hub", pushed.adapter, "--dataset", pushed.images)
    assert ended.code == 0, ended.output
    assert_same_end(pushed.runs / "run_001", other.run)
    best = (other.run / "lora_weights/best").resolve()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert hub.content(pushed.adapter, name) == (best / name).read_bytes()
    assert "Trees (5)" in other.pitstop("list-runs").output


def test_a_pulled_model_makes_the_images_that_the_original_makes(pushed: Pushed, other: Machine, tmp_path: Path) -> None:
    for repo, run, original in (
        (pushed.base, "base_training/1", "base_training/2"),
        (pushed.adapter, "1", "2"),
    ):
        ended = other.pitstop("pull", repo)
        assert ended.code == 0, ended.output
        made: list[bytes] = []
        for base_dir, which in ((other.runs, run), (pushed.runs, original)):
            picture = tmp_path / f"{len(made)}.png"
            ended = pitstop(
                "generate", f"{which}@checkpoint-4", "--base-dir", base_dir, "--images", 3, "--output", picture, "--force"
            )
            assert ended.code == 0, ended.output
            made.append(picture.read_bytes())
        assert made[0] == made[1]


def test_the_cards_show_how_images_are_made(pushed: Pushed, hub: Hub) -> None:
    from huggingface_hub import ModelCard

    for repo, call in (
        (pushed.base, "load_sampler(snapshot_download(repo))"),
        (pushed.adapter, 'load_sampler(snapshot_download(repo) + "/base", adapter=snapshot_download(repo))'),
    ):
        text = hub.content(repo, "README.md").decode()
        card = ModelCard(text)
        assert card.data.pipeline_tag == "unconditional-image-generation" and card.data.library_name == "pitstop"
        assert call in text and f"pitstop resume --from-hub {repo}" in text, text
        words = "\n".join(line for line in text.splitlines() if not line.startswith("| Made with"))
        assert "from transformers" not in words and "tokenizer" not in words.lower() and "max_length" not in words, text
    assert "lora" in card.data.tags and "Trees" in text and "maple" in text and "12, 10, 8" in text, text


def test_anybody_makes_images_by_the_lines_of_the_cards(pushed: Pushed, hub: Hub, other: Machine) -> None:
    def anybody() -> None:
        other.enter()
        import numpy as np
        from huggingface_hub import snapshot_download

        from pitstop.trainers.tasks.diffusion.loading import load_sampler

        base = snapshot_download(pushed.base)
        there = pushed.runs / "base_training/run_002/checkpoints"
        wanted = load_sampler(there / "checkpoint-4").made(4, seed=0)
        assert wanted.shape == (4, 3, 8, 8)
        assert np.array_equal(load_sampler(base).made(4, seed=0), wanted)
        first = load_sampler(f"{base}/checkpoint-2").made(4, seed=0)
        assert np.array_equal(first, load_sampler(there / "checkpoint-2").made(4, seed=0))
        adapter = snapshot_download(pushed.adapter)
        run = pushed.runs / "run_002"
        wanted = load_sampler(run / "base_model", run / "lora_weights/checkpoint-4").made(4, seed=0)
        assert np.array_equal(load_sampler(f"{adapter}/base", adapter).made(4, seed=0), wanted)

    ended = pitstop("--version", prepare=anybody)
    assert ended.code == 0, ended.output


def test_a_base_on_the_hub_is_named_by_its_id(pushed: Pushed, hub: Hub, other: Machine) -> None:
    words = image_arguments(
        pushed.images.parent, other.runs, **{**OF_TREES, "from": None, "model_id": pushed.base, "max_steps": 1}
    )
    ended = other.start(*words).wait(60)
    assert ended.code == 0, ended.output
    assert (other.run / "base_model/model.safetensors").read_bytes() == hub.content(pushed.base, "model.safetensors")
    generated = other.pitstop("generate", 1, "--images", 1, "--output", other.home / "one.png")
    assert generated.code == 0, generated.output


def _forged(pushed: Pushed, hub: Hub, config: dict[str, Any]) -> None:
    """Put another description of the network into the newest checkpoint, under hashes that fit."""
    files = {path: hub.content(pushed.base, path) for path in hub.tree(pushed.base)}
    before = dict(files)
    files[f"checkpoint-{STOPPED_AT}/config.json"] = json.dumps(config).encode()
    fit_manifest(files, f"checkpoint-{STOPPED_AT}")
    hub.put(pushed.base, {path: content for path, content in files.items() if content != before[path]})


def _little_memory() -> Callable[[], None]:
    """The process may take half a gigabyte more than it has."""

    def prepare() -> None:
        import resource

        import psutil

        limit = psutil.Process().memory_info().vms + (512 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return prepare


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"widths": [4096, 4096, 2048]}, "describes"),
        ({"widths": [4096] * 3, "blocks": 64, "time_width": 4096, "mlp_ratio": 16}, "describes no DiffiT network"),
        ({"blocks": 10**12}, "describes no DiffiT network"),
        ({"classes": 4096}, "describes"),
    ],
    ids=["a huge network", "one beyond all bounds", "blocks without end", "more classes"],
)
def test_a_network_that_its_weights_are_not_is_refused_before_memory_is_taken(
    pushed: Pushed, hub: Hub, other: Machine, change: dict[str, Any], told: str
) -> None:
    _forged(pushed, hub, {**NETWORK, "classes": 0, "sigma_data": 0.5, **change})
    ended = other.pitstop("resume", "--from-hub", pushed.base, "--dataset", pushed.images, prepare=_little_memory())
    assert ended.code == 4 and told in ended.output and "Traceback" not in ended.output, ended.output
