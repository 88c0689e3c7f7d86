"""The configuration of the network: what is refused, the count of parameters and the sizes that are shipped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pitstop.trainers.tasks.diffusion.config import MAX_PARAMETERS, SIZES, DiffiTConfig, named_size
from pitstop.trainers.tasks.diffusion.model import DiffiT

COUNTS = {"diffit-cpu": 476_247, "diffit-cifar-l2": 15_117_227, "diffit-cifar-l4": 27_931_475}

REFUSED = [
    ({"model_type": "unet"}, "model_type: 'unet' is unknown; \"diffit\" is"),
    ({"depth": 3}, "depth: no such key; known are model_type, image_size"),
    ({"image_size": 32.0}, "image_size: 32.0 is not a whole number from 1 to 4096"),
    ({"channels": True}, "channels: True is not a whole number"),
    ({"blocks": 65}, "blocks: 65 is not a whole number from 1 to 64"),
    ({"blocks": 0}, "blocks: 0 is not a whole number"),
    ({"heads": 0}, "heads: 0 is not a whole number"),
    ({"classes": -1}, "classes: -1 is not a whole number from 0 to 4096"),
    ({"mlp_ratio": 17}, "mlp_ratio: 17 is not a whole number from 1 to 16"),
    ({"window": 32}, "window: 32 is not a whole number from 1 to 16"),
    ({"time_width": 2}, "time_width: 2 is not a whole number from 4 to 4096"),
    ({"time_width": 65}, "time_width: 65 is odd; one half are cosines"),
    ({"widths": []}, "widths: () is not a list of 1 to 6 widths"),
    ({"widths": [4] * 7}, "widths: (4, 4, 4, 4, 4, 4, 4) is not a list of 1 to 6"),
    ({"widths": 128}, "widths: 128 is not a list"),
    ({"widths": "128"}, "widths: 128 is not a list"),
    ({"widths": [128, None]}, "widths: None is not a whole number"),
    ({"widths": [8192]}, "widths: 8192 is not a whole number from 1 to 4096"),
    ({"widths": [128, 258]}, "widths: 258 is not a multiple of 4; each width is divided among 4 heads"),
    ({"heads": 3, "widths": [30]}, "widths: 30 is not a multiple of 12; each width is divided among 3 heads"),
    (
        {"image_size": 24},
        "image_size: 24 is not a multiple of 16, and the window of 4 has to divide the resolution of each of 3 stages",
    ),
    ({"sigma_data": 0}, "sigma_data: 0 is not a number above 0"),
    ({"sigma_data": float("nan")}, "sigma_data: nan is not a number"),
    ({"sigma_data": "0.5"}, "sigma_data: 0.5 is not a number"),
    ({"sigma_data": True}, "sigma_data: True is not a number"),
]


@pytest.mark.parametrize("name", SIZES)
def test_the_shipped_sizes_have_the_counts_of_the_specification_and_are_as_written(name: str) -> None:
    path = named_size(name)
    assert path is not None
    config = DiffiTConfig.from_json(json.loads(path.read_text()))
    assert path.read_text() == json.dumps(config.to_json(), indent=2) + "\n"
    assert config.parameters == COUNTS[name]
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DiffiT(config).parameters()) == COUNTS[name]


def test_what_is_no_size_has_no_file() -> None:
    assert named_size("diffit-huge") is None
    assert named_size("../sizes/diffit-cpu") is None


@pytest.mark.parametrize(
    "shape",
    [
        {"widths": (12,), "image_size": 6, "window": 3, "heads": 3, "time_width": 6},
        {"widths": (8, 16), "blocks": 3, "mlp_ratio": 2, "classes": 7, "channels": 1, "image_size": 28, "window": 7},
    ],
)
def test_parameters_are_counted_without_building(shape: dict[str, Any]) -> None:
    config = DiffiTConfig(**shape)
    with torch.device("meta"):
        assert config.parameters == sum(parameter.numel() for parameter in DiffiT(config).parameters())


@pytest.mark.parametrize(("change", "reason"), REFUSED, ids=[str(change) for change, _ in REFUSED])
def test_what_cannot_be_built_is_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        DiffiTConfig.from_json({**DiffiTConfig().to_json(), **change})


def test_a_network_too_large_to_be_meant_is_refused_before_it_is_built() -> None:
    with pytest.raises(
        ValueError, match=r"^the network would have [\d,]{13,} parameters, more than 4,294,967,296; choose smaller"
    ):
        DiffiTConfig(image_size=4096, widths=(4096,) * 6, blocks=64)
    assert DiffiTConfig(widths=(1024, 1024), blocks=40).parameters < MAX_PARAMETERS


@pytest.mark.parametrize("content", [None, [], "diffit", 3])
def test_a_configuration_is_an_object(content: object) -> None:
    with pytest.raises(ValueError, match=r"^a model configuration is a JSON object, not "):
        DiffiTConfig.from_json(content)


def test_only_the_kind_of_model_has_to_be_said() -> None:
    assert DiffiTConfig.from_json({"model_type": "diffit"}) == DiffiTConfig()
    with pytest.raises(ValueError, match=r"^model_type is missing; "):
        DiffiTConfig.from_json({"image_size": 32})


def test_what_is_written_reads_back_the_same() -> None:
    config = DiffiTConfig(widths=(16, 32), classes=10, sigma_data=1, image_size=64)
    written = config.to_json()
    assert json.loads(json.dumps(written)) == written
    assert isinstance(written["sigma_data"], float)
    assert DiffiTConfig.from_json(written) == config


def test_a_stage_has_half_the_resolution_of_the_one_before() -> None:
    assert [DiffiTConfig().resolution(stage) for stage in range(3)] == [32, 16, 8]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)
KEYS = st.sampled_from([*DiffiTConfig().to_json(), "other"])


@settings(max_examples=60, deadline=None)
@given(JSON | st.dictionaries(KEYS, JSON | st.integers(0, 64)))
def test_any_json_is_a_configuration_or_a_value_error(content: Any) -> None:
    if isinstance(content, dict):
        content = {"model_type": "diffit"} | content
    try:
        config = DiffiTConfig.from_json(content)
    except ValueError:
        return
    assert config.parameters <= MAX_PARAMETERS


def test_configurations_are_read_without_torch() -> None:
    code = "import sys, pitstop.trainers.tasks.diffusion.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0
