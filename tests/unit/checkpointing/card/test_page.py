from __future__ import annotations

import json
from pathlib import Path

import pytest

from pitstop.checkpointing.card.page import PageUpdate, page_files
from pitstop.checkpointing.runs.inventory import CARD, CURVE, Inventory
from pitstop.checkpointing.runs.portable_run import PortableRun
from support.fake_hub import REPO, new_run

pytestmark = pytest.mark.usefixtures("undrawn")


def page(tmp_path: Path, update: PageUpdate, **settings: object) -> dict[str, bytes]:
    run = new_run(tmp_path, {})
    config = json.loads((run.path / "config.json").read_text())
    config.update(settings)
    (run.path / "config.json").write_text(json.dumps(config))
    return dict(page_files(run, PortableRun.of(run), Inventory("0" * 32, run.name), REPO, update))


def test_only_what_the_update_asks_for_is_made(tmp_path: Path) -> None:
    assert page(tmp_path / "1", PageUpdate()).keys() == {CARD, CURVE}
    assert page(tmp_path / "2", PageUpdate(draw=False)).keys() == {CARD}
    assert page(tmp_path / "3", PageUpdate(card=False)).keys() == {CURVE}


def test_the_card_shows_a_picture_that_is_there_already(tmp_path: Path) -> None:
    assert CURVE.encode() not in page(tmp_path / "1", PageUpdate(draw=False))[CARD]
    assert CURVE.encode() in page(tmp_path / "2", PageUpdate(draw=False, has_curve=True))[CARD]


def test_a_path_that_reads_like_an_id_of_the_hub_is_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    card = page(tmp_path, PageUpdate(draw=False), data={"train": ["data/mine", "owner/theirs"]})[CARD].decode()
    assert "datasets/owner/theirs" in card and "datasets/data/mine" not in card
