from __future__ import annotations

import platform

from pitstop.checkpointing.state import versions


def test_only_what_is_installed_has_a_version() -> None:
    found = versions.installed(("pytest", "no-such-package-of-anyone"))
    assert list(found) == ["pytest"] and found["pytest"][0].isdigit()


def test_a_checkpoint_says_with_what_it_was_saved_and_not_where() -> None:
    content = versions.describe()
    assert set(versions.COMPUTING[:3]) <= content["versions"].keys()
    assert content["python"] == platform.python_version()
    assert platform.node() not in str(content)
