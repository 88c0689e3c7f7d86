"""The flat list of settings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.leaves import leaves, nearest_path
from pitstop.configs.schema import Settings
from pitstop.configs.values import parse


def test_the_default_of_a_leaf_is_that_of_the_schema() -> None:
    settings = Settings()
    assert all(leaf.value_in(settings) == leaf.default for leaf in leaves())


@given(st.text(min_size=1, max_size=30))
def test_a_suggestion_is_always_a_setting_or_a_group(word: str) -> None:
    path = nearest_path(word)
    assert path is None or any(leaf.path == path or leaf.path.startswith(f"{path}.") for leaf in leaves())


def test_every_setting_has_a_name_of_its_own_a_meaning_and_a_default_that_fits() -> None:
    names = [leaf.env for leaf in leaves()]
    flags = [leaf.flag for leaf in leaves() if leaf.flag]
    assert len(set(names)) == len(names)
    assert len(set(flags)) == len(flags)
    for leaf in leaves():
        assert leaf.help.endswith(".")
        assert leaf.flag or leaf.secret
        if leaf.default is not None:
            assert parse(leaf, leaf.default) == leaf.default
