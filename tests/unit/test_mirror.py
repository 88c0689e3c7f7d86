"""``tests/unit`` mirrors the source: where a module lies, its tests lie too."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("checkpointing", "cli", "configs", "naming", "trainers")

ABOUT_MORE_THAN_A_MODULE = {
    "checkpointing/card/test_image_card.py": "the cards of networks that make images, beside test_model_card",
    "checkpointing/state/test_hostile_state.py": "files that lie, read by state, codec and weights",
    "naming/test_name_properties.py": "what holds of any name, tried with random settings",
    "trainers/data/images/test_presets.py": "the presets of the image sets",
}


def test_unit_tests_lie_where_the_module_does_that_they_are_about(repository: Path) -> None:
    unit = repository / "tests" / "unit"
    tests = [path.relative_to(unit) for path in unit.rglob("test_*.py") if path.relative_to(unit).parts[0] in PACKAGES]
    modules = {test: repository / test.with_name(test.name.removeprefix("test_")) for test in tests}
    elsewhere = {str(test) for test, module in modules.items() if not (module.is_file() or module.with_suffix("").is_dir())}
    assert elsewhere == set(ABOUT_MORE_THAN_A_MODULE)
