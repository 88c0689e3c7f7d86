from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.leaves import leaves
from pitstop.configs.secrets import is_secret_name
from support.cli import Cli
from support.stores import ForgetfulStorage, save

TRAIN, EVAL, BASE = "a" * 64, "e" * 64, "b" * 64
ROW = {"loss": 1.0, "tokens": 100, "tokens_per_s": 10.0}


def config(**changes: Any) -> dict[str, Any]:
    """Settings, with those in ``changes`` (``training__epochs``) put in their place."""
    content: dict[str, dict[str, Any]] = {
        "model": {"id": "some/model", "revision": None},
        "data": {"train": ["a.jsonl"], "eval": ["b.jsonl"], "packing": True},
        "lora": {"rank": 16},
        "training": {"epochs": 3, "checkpoint": {"monitor": "val_loss", "mode": "min", "base_dir": "here", "run_number": None}},
        "sources": {"lora.rank": ".env line 3"},
    }
    for path, value in changes.items():
        *groups, name = path.split("__")
        place: dict[str, Any] = content
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return content


def make(
    name: str,
    scores: dict[int, dict[str, float | None]] | None = None,
    *,
    rows: list[dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    evaluation: str | None = EVAL,
    base: str = "checkpoints",
    **metadata: Any,
) -> RunDirectory:
    """A run with a checkpoint for each step of ``scores`` and ``rows`` in its log."""
    data = {"fingerprint": TRAIN, **({"eval": {"fingerprint": evaluation}} if evaluation else {})}
    run = create_run(
        base,
        name=name,
        config=settings or config(),
        metadata={"data": data, "base_model": {"digest": BASE}, "status": "completed", **metadata},
        storage=ForgetfulStorage(),
    )
    for step, metrics in (scores or {}).items():
        save(run.store, step, metrics=metrics)
    if scores:
        run.sync_checkpoints({"progress": {"step": max(scores), "total_steps": 40}})
    if rows is not None:
        run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.fixture
def two() -> tuple[RunDirectory, RunDirectory]:
    one = make(
        "first",
        {
            10: {"val_loss": 0.5, "val_token_accuracy": 0.7, "odd": 3.0},
            20: {"val_loss": 0.25, "val_token_accuracy": 0.8, "odd": 1.0},
        },
        rows=[
            {"step": 10, "loss": 2.0, "tokens": 1000, "tokens_per_s": 10.0},
            {"step": 20, "loss": 1.0, "val_loss": 0.25, "tokens": 2000, "tokens_per_s": 30.0},
            {"step": 30, "loss": 1.5, "tokens": 3000, "tokens_per_s": 90.0},
        ],
    )
    other = make(
        "second",
        {30: {"val_loss": 0.375, "val_token_accuracy": 0.9, "odd": 2.0}},
        rows=[{"step": 15, "loss": 3.0, "tokens": 1500}, {"step": 30, "loss": 0.5, "val_loss": 0.375, "tokens": 3000}],
        settings=config(lora__rank=32, model__revision="v2", data__packing=False, training__checkpoint__base_dir="there"),
    )
    return one, other


def table(output: str) -> dict[str, list[str]]:
    """The cells of each row by its title; titles and cells stand two spaces apart."""
    rows = (re.split(r" {2,}", line.strip()) for line in output.splitlines())
    return {cells[0]: cells[1:] for cells in rows}


@pytest.mark.usefixtures("two")
def test_only_settings_that_differ_are_shown(pitstop: Cli) -> None:
    out = pitstop("compare", "1", "2").stdout
    assert out.startswith("Runs\nrun_001  first\nrun_002  second\n\nSettings that differ\n")
    rows = table(out.partition("Metrics")[0])
    assert rows["data.packing"] == ["true", "false"]
    assert rows["lora.rank"] == ["16", "32"]
    assert rows["model.revision"] == ["-", "v2"]
    assert not {"model.id", "training.epochs", "training.checkpoint.base_dir", "sources.lora.rank"} & rows.keys()
    every = table(pitstop("compare", "1", "2", "--all").stdout)
    assert every["model.id"] == ["some/model", "some/model"]
    assert every["training.checkpoint.mode"] == ["min", "min"]
    assert not [path for path in every if path.endswith(("base_dir", "run_number")) or path.startswith("sources")]


def test_settings_are_grouped_and_those_in_force(pitstop: Cli) -> None:
    one, _ = make("first", {10: {"val_loss": 1.0}}), make("second")
    one.record_resume(one.store.resolve("last"), {"training.epochs": (3, 5), "lora.dropout": (None, 0.5)})
    rows = pitstop("compare", "1", "2", "--json", "--all").json()["settings"]
    assert [row["setting"] for row in rows] == sorted(
        (row["setting"] for row in rows), key=lambda path: path.rpartition(".")[::2]
    )
    shown = {row["setting"]: (row["values"], row["differs"]) for row in rows}
    assert shown["training.epochs"] == ([5, 3], True)
    assert shown["lora.dropout"] == ([0.5, None], True)
    assert shown["lora.rank"] == ([16, 16], False)


def test_secrets_stay_out_and_yes_is_not_one(pitstop: Cli) -> None:
    token = "hf_" + "A1b2" * 8
    make("first", settings=config(hub__token="x" * 30, hub__repo=token, data__packing=True))
    make("second", settings=config(hub__token="y" * 30, hub__repo="user/r", data__packing=1))
    result = pitstop("compare", "1", "2", "--json")
    shown = {row["setting"]: row["values"] for row in result.json()["settings"]}
    assert shown == {"hub.repo": ["<hidden>", "user/r"], "data.packing": [True, 1]}
    assert token not in result.stdout + result.stderr
    assert all(is_secret_name(leaf.name) for leaf in leaves() if leaf.secret)
    assert [leaf.path for leaf in leaves() if is_secret_name(leaf.name) and not leaf.secret] == []


@pytest.mark.usefixtures("two")
def test_metrics_stand_side_by_side_with_the_best_marked(pitstop: Cli) -> None:
    out = pitstop("compare", "1", "2").stdout
    rows = table(out.partition("Metrics")[2])
    assert rows["status"] == ["completed", "completed"]
    assert rows["steps"] == ["20/40", "30/40"]
    assert rows["tokens"] == ["3,000", "3,000"]
    assert rows["best checkpoint"] == ["checkpoint-20", "checkpoint-30"]
    assert rows["chosen by"] == ["val_loss (min)", "val_loss (min)"]
    assert rows["val_loss"] == ["0.25 ★", "0.375"]
    assert rows["val_token_accuracy"] == ["0.8", "0.9 ★"]
    assert rows["odd"] == ["1", "2"]
    assert rows["last logged loss"] == ["1.5", "0.5"]
    assert rows["tokens/s (median)"] == ["30", "-"]
    assert rows["training data"] == ["same", "same"]
    assert rows["evaluation data"] == rows["base model"] == ["same", "same"]
    assert "differs" not in out
    assert list(rows)[list(rows).index("chosen by") + 1] == "val_loss"


def test_a_run_is_judged_by_its_own_mode(pitstop: Cli) -> None:
    settings = config(training__checkpoint={"monitor": "quality", "mode": "max"})
    make("first", {10: {"quality": 0.5}, 20: {"quality": 0.75}}, settings=settings)
    make("second", {10: {"quality": 0.25}}, settings=settings)
    content = pitstop("compare", "1", "2", "--json").json()
    assert content["metrics"] == [{"metric": "quality", "mode": "max", "values": [0.75, 0.25], "best": [0]}]
    assert content["runs"][0]["best_checkpoint"]["name"] == "checkpoint-20"


def test_other_evaluation_data_is_said_and_nothing_on_it_marked(pitstop: Cli) -> None:
    make("first", {10: {"val_loss": 0.5, "train_loss": 0.5}})
    make("second", {10: {"val_loss": 0.25, "train_loss": 0.75}}, evaluation="f" * 64)
    out = pitstop("compare", "1", "2").stdout
    rows = table(out)
    assert rows["val_loss"] == ["0.5", "0.25"]
    assert rows["train_loss"] == ["0.5 ★", "0.75"]  # on training data, which is the same
    assert rows["evaluation data"] == ["eeeeeeeeee", "ffffffffff"]
    assert out.count("The evaluation data differs") == 1
    assert pitstop("compare", "1", "2", "--json").json()["same"] == {
        "data": True,
        "eval_data": False,
        "base": True,
        "monitor": True,
    }


def test_evaluation_data_that_is_not_known_is_not_taken_for_the_same(pitstop: Cli) -> None:
    make("first", {10: {"val_loss": 0.5}})
    make("second", {10: {"val_loss": 0.25}}, evaluation=None)
    out = pitstop("compare", "1", "2").stdout
    assert table(out)["val_loss"] == ["0.5", "0.25"]
    assert "Which evaluation data scored run_002 is not known" in out
    make("third", {10: {"val_loss": 0.25}}, evaluation=None)
    out = pitstop("compare", "2", "3").stdout
    assert table(out)["val_loss"] == ["0.25", "0.25"]
    assert table(out)["evaluation data"] == ["-", "-"]


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"data.eval": (["b.jsonl"], ["c.jsonl"])}, False),
        ({"data.eval": (["/old/b.jsonl"], ["/new/b.jsonl"])}, True),
        ({"data.max_length": (512, 256)}, False),
        ({"data.train": (["a.jsonl"], ["c.jsonl"])}, True),
        ({"training.epochs": (3, 4)}, True),
    ],
    ids=["other data", "the same elsewhere", "cut otherwise", "other training data", "more epochs"],
)
def test_a_resume_on_other_evaluation_data_makes_it_unknown(pitstop: Cli, changes: dict[str, Any], known: bool) -> None:
    one, _ = make("first", {10: {"val_loss": 0.5}}), make("second", {10: {"val_loss": 0.25}})
    one.record_resume(one.store.resolve("last"), changes)
    same = pitstop("compare", "1", "2", "--json").json()["same"]["eval_data"]
    assert same is (True if known else None)


def test_held_out_records_depend_on_what_they_are_held_out_from(pitstop: Cli) -> None:
    settings = config(data__eval=[], data__eval_fraction=0.1)
    one, _ = (
        make("first", {10: {"val_loss": 0.5}}, settings=settings),
        make("second", {10: {"val_loss": 0.25}}, settings=settings),
    )
    one.record_resume(one.store.resolve("last"), {"training.seed": (1, 2)})
    assert pitstop("compare", "1", "2", "--json").json()["same"]["eval_data"] is None


def test_another_monitored_metric_is_said(pitstop: Cli) -> None:
    make("first", {10: {"val_loss": 0.5}})
    make("second", {10: {"train_loss": 0.5}}, settings=config(training__checkpoint__monitor="train_loss"))
    out = pitstop("compare", "1", "2").stdout
    assert "The monitored metric differs: run_001 val_loss (min), run_002 train_loss (min).\n" in out
    assert table(out)["val_loss"] == ["0.5", "-"]


def test_data_is_that_of_the_newest_checkpoint(pitstop: Cli) -> None:
    run = make("first", {10: {"val_loss": 0.5}})
    make("second")
    content = pitstop("compare", "1", "2", "--json").json()
    assert [one["identity"]["data"] for one in content["runs"]] == ["d", TRAIN]
    assert [one["identity"]["base"] for one in content["runs"]] == ["b", BASE]
    assert run.store.list()[-1].manifest.fingerprints["data"] == "d"
    assert "The training data differs" in " ".join(content["notes"])


def test_a_run_without_rows_or_checkpoints_has_dashes(pitstop: Cli) -> None:
    make("first")
    make("second")
    result = pitstop("compare", "1", "2", "--plot")
    assert (result.code, result.stderr) == (0, "")
    rows = table(result.stdout)
    for title in ("tokens", "best checkpoint", "chosen by", "last logged loss", "tokens/s (median)"):
        assert rows[title] == ["-", "-"]
    assert "none: these runs have the same settings" in result.stdout
    assert "nothing is logged yet" in result.stdout
    result = pitstop("compare", "1", "2", "--png", "a.png")
    assert (result.code, result.stdout, Path("a.png").exists()) == (2, "", False)
    assert "nothing to draw" in result.stderr


def test_a_loss_that_was_no_number_is_nan(pitstop: Cli) -> None:
    make("first", rows=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "tokens": 5}])
    make("second", rows=[{"step": 1, "loss": 2.0}])
    assert table(pitstop("compare", "1", "2").stdout)["last logged loss"] == ["nan", "2"]
    assert pitstop("compare", "1", "2", "--json").json()["runs"][0]["last_loss"] is None


def test_bad_references_are_refused(pitstop: Cli) -> None:
    make("first", {10: {"val_loss": 1.0}})
    make("second")
    for arguments, told in (
        (["1"], "compare takes 2 to 8 runs, and one is given"),
        (list("123456789"), "compare takes 2 to 8 runs, and 9 are given"),
        (["1", "99"], "run '99' not found"),
        (["1", "run_001"], "which is given twice"),
        (["1@best", "2"], "'1@best' is one checkpoint; compare takes whole runs"),
        (["2", "checkpoints/run_001/lora_weights/checkpoint-10"], "is one checkpoint; compare takes whole runs"),
        ([], "RUN"),
    ):
        result = pitstop("compare", *arguments)
        assert (result.code, result.stdout) == (2, ""), arguments
        assert told in result.stderr
    assert "Give run_001" in pitstop("compare", "1@best", "2").stderr


@pytest.mark.parametrize("refs", [("1", "2"), ("run_001", "run_002"), ("first", "second"), ("checkpoints/run_001", "2")])
@pytest.mark.usefixtures("two")
def test_runs_are_found_by_any_of_their_names(pitstop: Cli, refs: tuple[str, str]) -> None:
    assert [run["run"] for run in pitstop("compare", *refs, "--json").json()["runs"]] == ["run_001", "run_002"]


def test_runs_of_one_number_are_told_apart_by_their_place(pitstop: Cli) -> None:
    make("first", base="a/runs")
    make("second", base="b/runs")
    content = pitstop("compare", "a/runs/run_001", "b/runs/run_001", "--json").json()
    assert [run["run"] for run in content["runs"]] == ["a/runs/run_001", "b/runs/run_001"]


def test_damage_is_said_and_the_rest_shown(pitstop: Cli, two: tuple[RunDirectory, RunDirectory]) -> None:
    one, other = two
    (one.path / "metadata.json").write_text("{")
    (other.store.directory / "checkpoint-30" / "state.json").unlink()
    result = pitstop("compare", "1", "2")
    assert result.code == 0
    assert "run_001" in result.stderr and "metadata.json: damaged" in result.stderr
    assert "run_002" in result.stderr and "state.json is missing" in result.stderr
    rows = table(result.stdout.partition("Metrics")[2])
    assert rows["status"] == ["incomplete", "completed"]
    assert rows["val_loss"] == ["0.25", "-"]
    assert rows["steps"] == ["20", "30/40"]
    (other.path / "config.json").write_text("[")
    result = pitstop("compare", "1", "2")
    assert (result.code, "config.json: damaged" in result.stderr) == (4, True)


def test_metadata_of_another_shape_is_no_bug(pitstop: Cli) -> None:
    odd = {
        "progress": {"step": 1e400, "total_steps": "x"},
        "data": [1],
        "base_model": 5,
        "resumes": [3, {"changes": 1}],
        "name": ["x"],
    }
    run = make("first", rows=[{"step": [], "loss": {}, "tokens": "many", "tokens_per_s": True}, {"step": 10**400, "loss": 1e300}])
    make("second", {10: {"val_loss": 1.0}})
    (run.path / "metadata.json").write_text(json.dumps({**run.metadata().content, **odd}))
    result = pitstop("compare", "1", "2", "--json")
    assert result.code == 0
    assert (result.json()["runs"][0]["step"], result.json()["runs"][0]["name"]) == (None, "run_001")
    assert pitstop("compare", "1", "2", "--plot", "--html", "a.html").code == 0


def test_a_log_that_is_a_pipe_keeps_nobody_waiting(pitstop: Cli) -> None:
    os.mkfifo(make("first").metrics_path)
    make("second", rows=[{"step": 1, "loss": 2.0}])
    result = pitstop("compare", "1", "2")
    assert (result.code, "not a regular file" in result.stderr) == (0, True)


def test_text_of_a_run_does_not_control_the_terminal(pitstop: Cli) -> None:
    evil = "\x1b]0;owned\x07\u202e<script>alert(1)</script>"
    rows = [{"step": 1, "loss": 2.0, evil: 1.0}, {"step": 2, "loss": 1.0, evil: 2.0}]
    for name in ("first", "second"):
        run = make(
            name, {10: {"val_loss": 1.0, evil: 0.5}}, rows=rows, settings=config(**{"lora__" + evil: name + evil}), dataset=evil
        )
        (run.path / "metadata.json").write_text(json.dumps({**run.metadata().content, "name": evil, "status": evil}))
    for arguments in ([], ["--json"], ["--plot", "--metric", evil]):
        result = pitstop("compare", "1", "2", "--html", "a.html", *arguments)
        assert result.code == 0
        assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout + result.stderr)
        page = Path("a.html").read_text()
        assert not {"\x1b", "\x07", "\u202e"} & set(page)
        assert "<script" not in page and "&lt;script&gt;" in page
    assert not {"\x1b", "\u202e"} & set(pitstop("compare", "1", "2", "--metric", "lossy").stderr)


@pytest.mark.usefixtures("two")
def test_the_curve_shows_what_is_asked_for(pitstop: Cli) -> None:
    content = pitstop("compare", "1", "2", "--json").json()["curves"]
    assert (content["metric"], content["validation_metric"]) == ("loss", "val_loss")
    assert content["series"][0] == {
        "run": "run_001",
        "points": [[10, 2.0], [20, 1.0], [30, 1.5]],
        "validation_points": [[20, 0.25]],
    }
    content = pitstop("compare", "1", "2", "--json", "--metric", "val_loss").json()["curves"]
    assert [one["points"] for one in content["series"]] == [[[20, 0.25]], [[30, 0.375]]]
    result = pitstop("compare", "1", "2", "--metric", "los")
    assert result.code == 2
    assert "--metric los: none of these runs has logged it" in result.stderr
    assert "There are: loss, tokens, tokens_per_s, val_loss." in result.stderr


def test_a_pipe_gets_the_plot_on_request_only(pitstop: Cli) -> None:
    make("first", rows=[{"step": 0, "loss": 2.0}, {"step": 8, "loss": 1.0}])
    make("second", rows=[{"step": 0, "loss": 1.0}, {"step": 8, "loss": 2.0}])
    assert "by step" not in pitstop("compare", "1", "2").stdout
    out = pitstop("compare", "1", "2", "--plot").stdout
    plot = out.partition("loss by step\n")[2].splitlines()
    assert len(plot) == 12 + 2 + 2
    # 73 columns and 12 rows: the first row is left half a row down, 72 / 22 columns on.
    assert plot[0] == f"    2 ┤oooo{' ' * 65}xxxx"
    assert plot[11] == f"    1 ┤xxxx{' ' * 65}oooo"
    assert max(map(len, plot)) == 80
    assert plot[-2:] == ["  run_001  ooooo loss", "  run_002  xxxxx loss"]


def test_json_has_these_keys(pitstop: Cli, two: tuple[RunDirectory, RunDirectory]) -> None:
    content = pitstop("compare", "1", "2", "--json").json()
    assert list(content) == ["runs", "same", "settings", "metrics", "curves", "notes", "problems"]
    assert list(content["runs"][0]) == [
        "run",
        "run_number",
        "path",
        "name",
        "experiment_name",
        "status",
        "model",
        "dataset",
        "step",
        "total_steps",
        "tokens",
        "images",
        "monitor",
        "best_checkpoint",
        "last_loss",
        "tokens_per_s",
        "images_per_s",
        "identity",
    ]
    assert list(content["runs"][0]["best_checkpoint"]) == ["name", "step", "epoch", "metric", "mode", "value", "metrics"]
    assert content["metrics"][0] == {"metric": "val_loss", "mode": "min", "values": [0.25, 0.375], "best": [0]}
    assert content["runs"][0]["tokens_per_s"] == 30.0


@pytest.mark.usefixtures("two")
def test_picture_and_page_are_written(pitstop: Cli) -> None:
    from PIL import Image

    Path("a.png").write_text("old")
    Path("a.html").write_text("old")
    result = pitstop("compare", "1", "2", "--png", "a.png", "--html", "a.html", "--json")
    assert (result.code, result.stderr) == (0, "written: a.png\nwritten: a.html\n")
    assert result.json()["runs"]
    picture = Path("a.png").read_bytes()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    colours = {colour for _, colour in image.getcolors(1 << 20) or []}
    assert {(0x2F, 0x6F, 0xB5), (0xD1, 0x49, 0x5B), (255, 255, 255)} <= colours
    page = Path("a.html").read_text()
    assert base64.b64encode(picture).decode() in page
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert "default-src 'none'" in page
    assert '<td class="best">0.25 ★</td><td>0.375</td>' in page
    assert '<th scope="row">rank</th><td>16</td><td>32</td>' in page
    assert sorted(path.name for path in Path().iterdir() if path.name != "checkpoints") == ["a.html", "a.png"]
    pitstop("compare", "1", "2", "--png", "again.png")
    assert Path("again.png").read_bytes() == picture


@pytest.mark.usefixtures("two")
def test_files_are_never_written_over_what_is_no_file(pitstop: Cli) -> None:
    Path("victim").write_text("precious")
    Path("link").symlink_to("victim")
    os.mkfifo("pipe")
    Path("directory").mkdir()
    for flag in ("--png", "--html"):
        for name in ("link", "pipe", "directory"):
            result = pitstop("compare", "1", "2", flag, name)
            assert (result.code, "not a regular file" in result.stderr, result.stdout) == (2, True, "")
        result = pitstop("compare", "1", "2", flag, "absent/a")
        assert (result.code, "there is no directory absent" in result.stderr) == (2, True)
    assert Path("victim").read_text() == "precious"
    result = pitstop("compare", "1", "2", "--png", "a", "--html", "./a")
    assert (result.code, "name the same file" in result.stderr) == (2, True)


@pytest.mark.usefixtures("two")
def test_a_file_that_cannot_be_written_is_one_message(pitstop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from pitstop.cli.commands import compare

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compare, "atomic_write", full)
    result = pitstop("compare", "1", "2", "--html", "a.html")
    assert (result.code, "a.html could not be written: No space left on device" in result.stderr) == (6, True)


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--plot"], ["--all"]], ids=" ".join)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    make("first", {10: {"val_loss": 1.0}}, rows=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    make("second")
    code = (
        f"import sys\nfrom pitstop.cli.main import main\nassert main({['compare', '1', '2', *arguments]!r}) == 0\n"
        "heavy = ('torch', 'transformers', 'pydantic', 'rich', 'yaml', 'numpy', 'matplotlib', 'huggingface_hub')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.strip() == "[]"


def test_without_unicode_the_star_is_an_asterisk(two: tuple[RunDirectory, RunDirectory]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pitstop.cli", "compare", "1", "2", "--plot"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode("ascii")
    assert table(text)["val_loss"] == ["0.25 *", "0.375"]
    assert re.search(r"^ +3 \+", text, re.MULTILINE)


def on_terminal(width: int, *arguments: str, **environment: str) -> str:
    """What ``pitstop`` shows on a terminal ``width`` columns wide."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update({"COLUMNS": str(width), "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment})
        os.execv(sys.executable, [sys.executable, "-m", "pitstop.cli", *arguments])
    output = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says EIO where others say end of file
            break
        if not piece:
            break
        output += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return output.decode().replace("\r\n", "\n")


def test_a_terminal_gets_coloured_curves_and_no_line_too_long() -> None:
    for number in range(4):
        rows = [{"step": step, "loss": 10.0 / (step + number + 1), "val_loss": 2.0} for step in range(0, 50, 7)]
        settings = config(model__id=f"organisation/{'long' * 20}{number}")
        make(f"smollm2135-{'train' * 12}-{number}", {10: {"val_loss": 1.0 + number}}, rows=rows, settings=settings)
    shown = on_terminal(80, "compare", "1", "2", "3", "4")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 80
    assert "\x1b[36m⠒⠒⠒⠒⠒\x1b[0m loss" in shown and "\x1b[33m⠒⠒ ⠒⠒\x1b[0m val_loss" in shown
    assert any(0x2800 < ord(letter) < 0x2900 for letter in plain.partition("by step")[2].partition("└")[0])
    assert plain.count("status") == 2  # 17 + 4 · 16 characters are 81
    assert "…" in plain
    without = on_terminal(80, "compare", "1", "2", "3", "4", NO_COLOR="1")
    assert "\x1b" not in without
    assert "ooooo loss" in without and "┤" in without
    assert "by step" not in on_terminal(80, "compare", "1", "2", "--no-plot")


def test_no_name_brings_colours_of_its_own() -> None:
    evil = "\x1b[31mred"
    for name in ("first", "second"):
        settings = config(training__checkpoint__monitor=evil + name)
        make(name, {1: {evil: 1.0}}, rows=[{"step": 1, evil: 1.0}, {"step": 2, evil: 2.0}], settings=settings, status=evil)
    assert "\x1b[31m" not in on_terminal(140, "compare", "1", "2", "--metric", evil)


def test_validation_is_dashed_in_the_picture(pitstop: Cli) -> None:
    from PIL import Image

    for name in ("first", "second"):
        make(name, rows=[{"step": step, "val_loss": 1.0 + (name == "second")} for step in (1, 100)])

    def inked(path: str) -> int:
        return sum(
            count for count, colour in Image.open(path).convert("RGB").getcolors(1 << 20) or [] if colour == (0x2F, 0x6F, 0xB5)
        )

    pitstop("compare", "1", "2", "--png", "dashed.png")
    pitstop("compare", "1", "2", "--png", "solid.png", "--metric", "val_loss")
    assert 0 < inked("dashed.png") < 0.85 * inked("solid.png")
