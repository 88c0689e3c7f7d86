from __future__ import annotations

from types import SimpleNamespace

import pytest

from pitstop.checkpointing.hub import contents


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is not drawn for real, which takes a third of a second."""
    monkeypatch.setattr(contents, "curve", SimpleNamespace(loss_curve=lambda rows, title: b"a picture"))
