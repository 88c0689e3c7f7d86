from __future__ import annotations

import json
from pathlib import Path

from pitstop.checkpointing.runs.portable_run import PortableRun
from support.fake_hub import new_run

TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"


def test_paths_of_this_machine_become_names_at_any_depth(tmp_path: Path) -> None:
    run = new_run(tmp_path, {}, data={"path": f"{tmp_path}/data/train.jsonl", "parts": [f"{tmp_path}/eval.jsonl", 3]})
    assert PortableRun.of(run).metadata.content["data"] == {"path": "train.jsonl", "parts": ["eval.jsonl", 3]}


def test_the_documents_hold_no_token_and_no_source_of_a_setting(tmp_path: Path) -> None:
    run = new_run(tmp_path, {}, environment={"token": TOKEN})
    config = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**config, "sources": {"model.id": f"{tmp_path}/.env"}}))
    files = PortableRun.of(run).files(4)
    assert files.keys() == {"config.json", "metadata.json", "metrics.jsonl"}
    assert "sources" not in json.loads(files["config.json"])
    assert TOKEN.encode() not in files["metadata.json"]


def test_the_log_goes_as_far_as_the_last_step_and_rows_without_a_step_stay_here(tmp_path: Path) -> None:
    run = new_run(tmp_path, {})
    with run.metrics_path.open("a") as file:
        file.write('{"loss": 1.0}\n')
    assert [row["step"] for row in PortableRun.of(run).rows] == list(range(1, 10))
    rows = PortableRun.of(run).files(4)["metrics.jsonl"].splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4]
    assert PortableRun.of(run).files(-1)["metrics.jsonl"] == b""
