from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from markdown_it import MarkdownIt

from pitstop.checkpointing.card.facts import CardFacts, is_hub_id
from pitstop.checkpointing.card.model_card import model_card
from pitstop.checkpointing.runs.inventory import RemoteCheckpoint
from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.configs.load import load_settings, settings_to_dict

BASE, COMMIT = "some-owner/Base-1B", "0123456789abcdef0123456789abcdef01234567"
HOSTILE = [
    "a | b | c",
    "`code` ``` fence",
    "line\n\n---\n\n# heading",
    "---",
    "<script>alert(1)</script> <!-- &lt; &amp;",
    "![x](https://evil.example/x.png) [link](javascript:x) https://evil.example www.evil.example",
    "*bold* _it_ **b** ~~s~~ \\| \\",
    '"quoted": {yaml: [1, 2]} # no comment \'',
    "\x1b[31mred\u202e\u2028 end",
    "- item",
    "1. item",
    "> quote",
    "$x_1$ ${HOME} @someone :smile: é 日本",
]


def entry(step: int, **metrics: float | None) -> RemoteCheckpoint:
    return RemoteCheckpoint(f"checkpoint-{step}", step, step / 100, "2026-01-01T12:00:00+00:00", metrics, 5_000_000, "0" * 64)


def entries(*losses: float | None) -> dict[str, RemoteCheckpoint]:
    found = [entry(100 * number, val_loss=loss, accuracy=0.5) for number, loss in enumerate(losses, start=1)]
    return {each.directory: each for each in found}


def settings(**flags: Any) -> dict[str, Any]:
    given = {
        "model.id": BASE,
        "data.train": ["owner/records"],
        **{path.replace("__", "."): value for path, value in flags.items()},
    }
    return settings_to_dict(load_settings(flags=given, environ={}).settings)


def facts(**changes: Any) -> CardFacts:
    metadata = {
        "base_model": {"id": BASE, "revision": COMMIT},
        "progress": {"step": 300, "total_steps": 300},
        "data": {"used": 1234, "tokens": 56789},
        "environment": {"versions": {"pitstop": "0.1.0", "torch": "2.13.0+cpu"}, "precision": "bf16"},
    }
    usual: dict[str, Any] = {
        "repo": "user/a-run",
        "name": "a-run",
        "checkpoints": entries(0.5, 0.25, 0.75),
        "settings": settings(),
        "metadata": metadata,
        "root": "checkpoint-200",
        "best": "checkpoint-200",
        "finished": True,
        "has_curve": True,
    }
    arguments = {**usual, **changes}
    return CardFacts(**{**arguments, "metadata": Metadata(arguments["metadata"])})


def front_matter(card: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert match is not None
    content = yaml.safe_load(match[1])
    assert isinstance(content, dict)
    return content


def rendered(card: str) -> list[list[list[str]]]:
    """The tables of the card as a Markdown reader shows them: tables of rows of cells."""
    body = card.split("\n---\n", 1)[1]
    tables: list[list[list[str]]] = []
    for token in (tokens := MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and tokens[tokens.index(token) - 1].type in ("td_open", "th_open"):
            children = token.children or []
            assert not [child for child in children if child.type in ("html_inline", "image")]
            tables[-1][-1].append("".join(child.content for child in children))
    return tables


def code(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)


def test_front_matter_is_what_the_hub_reads() -> None:
    card = model_card(facts())
    assert front_matter(card) == {
        "library_name": "peft",
        "base_model": BASE,
        "pipeline_tag": "text-generation",
        "tags": ["lora", "qlora", "pitstop"],
        "datasets": ["owner/records"],
    }
    assert ModelCard(card).data.base_model == BASE
    assert card.endswith("\n") and not card.endswith("\n\n")


def test_only_ids_of_the_hub_are_claimed_to_be_there() -> None:
    data = ["train.jsonl", "example:medical_ner/train.jsonl", "data/rows.csv", "data/folder", "owner/set", "a/b/c"]
    local = facts(
        settings=settings(model__id="models/llama", data__train=data, training__method="lora"),
        metadata={"base_model": {"id": "models/llama", "revision": None}},
        local=["data/folder"],
    )
    matter = front_matter(model_card(local))
    assert "base_model" not in matter
    assert matter["datasets"] == ["owner/set"]
    assert matter["tags"] == ["lora", "pitstop"]


def test_the_demo_model_is_known_without_its_commit() -> None:
    demo = "HuggingFaceTB/SmolLM2-135M-Instruct"
    card = model_card(facts(settings=settings(model__id=demo), metadata={"base_model": {"id": demo, "revision": None}}))
    assert front_matter(card)["base_model"] == demo


@pytest.mark.parametrize(
    "text", ["a/b", "a-b/c.d_e", "a", "a/b/c", "/a", "a/", "a/-b", "a/b.", "a--b/c", "a/b..c", "a/b c", "a/b.git", "a/b\n", "é/b"]
)
def test_an_id_is_one_for_the_hub_too(text: str) -> None:
    if is_hub_id(text):
        validate_repo_id(text)
    assert is_hub_id(text) == (text in ("a/b", "a-b/c.d_e"))


def test_checkpoints_are_listed_by_step_and_the_best_is_marked() -> None:
    checkpoints = {**entries(0.5, 0.25), "checkpoint-50": entry(50, val_loss=None)}
    table = rendered(model_card(facts(checkpoints=checkpoints)))[1]
    assert table[0] == ["Checkpoint", "Step", "Epoch", "val_loss", "accuracy", "Size", ""]
    assert table[1:] == [
        ["checkpoint-50", "50", "0.5", "", "", "4.8 MiB", ""],
        ["checkpoint-100", "100", "1", "0.5", "0.5", "4.8 MiB", ""],
        ["checkpoint-200", "200", "2", "0.25", "0.5", "4.8 MiB", "best"],
    ]


def test_the_monitored_metric_comes_first() -> None:
    card = model_card(facts(settings=settings(training__checkpoint__monitor="accuracy")))
    assert rendered(card)[1][0][3:5] == ["accuracy", "val_loss"]


def test_of_many_checkpoints_the_newest_are_shown_and_the_best() -> None:
    card = model_card(facts(checkpoints=entries(*[0.5] * 200), best="checkpoint-300", root="checkpoint-20000"))
    rows = rendered(card)[1][1:]
    assert [rows[0][0], rows[1][0], rows[-1][0], len(rows)] == ["checkpoint-300", "checkpoint-15100", "checkpoint-20000", 51]
    assert "of 200" in card


@pytest.mark.parametrize(
    ("root", "best", "finished", "says"),
    [
        ("checkpoint-200", "checkpoint-200", True, "of checkpoint-200, the best one"),
        ("checkpoint-300", "checkpoint-200", False, "of checkpoint-300, the newest one so far"),
        ("checkpoint-300", "checkpoint-300", False, "of checkpoint-300, the best and newest one so far"),
        ("checkpoint-100", "checkpoint-200", False, "of checkpoint-100"),
    ],
)
def test_it_says_whose_adapter_lies_at_the_top(root: str, best: str, finished: bool, says: str) -> None:
    about = dict(rendered(model_card(facts(root=root, best=best, finished=finished)))[0])
    assert about["Adapter at the top"] == says
    assert about["Progress"] == f"training {'has ended' if finished else 'goes on'}, step 300 of 300"


def test_main_settings_are_always_there_and_others_where_they_differ() -> None:
    changed = settings(training__weight_decay=0.25, training__checkpoint__base_dir="../somewhere", naming__custom_id="me")
    shown = dict(rendered(model_card(facts(settings=changed)))[2][1:])
    assert shown == {
        "lora.rank": "32",
        "lora.alpha": "64",
        "training.learning_rate": "5e-05",
        "training.epochs": "5",
        "training.batch_size": "2",
        "training.gradient_accumulation_steps": "2",
        "data.max_length": "2048",
        "training.seed": "42",
        "training.weight_decay": "0.25",
    }


def test_the_code_loads_the_base_as_it_was_trained_on() -> None:
    load, checkpoint = code(model_card(facts()))
    ast.parse(load)
    assert f'    "{BASE}",\n    revision="{COMMIT}",\n    quantization_config=in_4bit,\n' in load
    assert "load_in_4bit=True" in load and "bnb_4bit_compute_dtype=torch.bfloat16" in load
    assert 'repo = "user/a-run"' in load and "PeftModel.from_pretrained(base, repo)" in load
    assert checkpoint == 'model = PeftModel.from_pretrained(base, repo, subfolder="checkpoint-200")\n'
    sixteen = code(model_card(facts(settings=settings(training__method="lora"))))[0]
    ast.parse(sixteen)
    assert "BitsAndBytes" not in sixteen and "import torch\n" not in sixteen


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"{{ `a` }}\\n"', 'tokenizer.chat_template = "{{ \\u0060a\\u0060 }}\\n"'),
        ("null", "tokenizer.chat_template = None"),
        ("", ""),
        ("7", ""),
        ("os.system(1)", ""),
    ],
)
def test_the_code_gives_the_base_s_tokenizer_the_template_of_the_run(text: str, line: str) -> None:
    from pitstop.checkpointing.card.usage import loading

    code = loading(CardFacts(repo="owner/name", name="x", settings={"data": {"chat_template_text": text}}))
    assert [each for each in code if each.startswith("tokenizer.chat_template")] == ([line] if line else [])


def test_a_base_that_is_not_on_the_hub_comes_from_the_repository_or_from_the_reader() -> None:
    local = facts(settings=settings(model__id="llama"), metadata={"base_model": {"id": "llama", "revision": None}})
    (load, _), card = code(model_card(local)), model_card(local)
    assert '"path/to/the/base"' in load and "put its path in here" in card
    load, _ = code(model_card(replace(local, base_pushed=True)))
    assert 'path = snapshot_download(repo, allow_patterns="base/*") + "/base"\n' in load
    assert "AutoModelForCausalLM.from_pretrained(\n    path,\n" in load
    ast.parse(load)
    assert "BitsAndBytes" not in load, "that copy is in 4 bits already"


def test_how_to_resume_is_said_where_there_is_a_checkpoint() -> None:
    card = model_card(facts())
    for line in ("resume --from-hub user/a-run\n", "resume --from-hub user/a-run@checkpoint-200\n", "pull user/a-run\n"):
        assert f"\npitstop {line}" in card
    empty = model_card(facts(checkpoints={}, root=None, best=None, finished=False, has_curve=False))
    assert "pitstop resume" not in empty and "subfolder" not in empty and "## Checkpoints" not in empty
    assert "loss_curve.png" in card and "loss_curve.png" not in empty


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_user_called_things_breaks_neither_yaml_nor_markdown(text: str) -> None:
    metrics = {"checkpoint-100": entry(100, **{text: 0.5})}
    changed = settings()
    changed["data"]["train"] = [text]
    changed["model"]["id"] = text
    changed["training"]["checkpoint"]["monitor"] = text
    metadata = {"base_model": {"id": text, "revision": text}, "environment": {"versions": {text: text}}}
    card = model_card(
        facts(name=text, checkpoints=metrics, best=None, root="checkpoint-100", settings=changed, metadata=metadata)
    )
    assert front_matter(card).keys() == {"library_name", "pipeline_tag", "tags"}
    about, checkpoints, shown = rendered(card)
    spelt = " ".join(text.split()).replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert dict(about)["Training data"] == spelt
    assert dict(about)["Base model"] == spelt
    assert checkpoints[0][3] == spelt
    assert dict(shown)["training.checkpoint.monitor"] == spelt
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert len(headings) == 6, headings
    assert all(ast.parse(block) for block in code(card))
    assert "https://evil" not in re.sub(r"^```python\n.*?^```", "", card, flags=re.MULTILINE | re.DOTALL)


def test_no_token_gets_into_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    token, other = "hf_" + "aB3" * 11, "s3cr*t_value"
    monkeypatch.setenv("MY_TOKEN", other)
    names = [f"owner/{token}", other]
    card = model_card(
        facts(
            name=f"run {token} {other}",
            settings=settings(model__id=f"owner/{token}", data__train=names),
            metadata={"base_model": {"revision": token}},
            checkpoints={"checkpoint-100": entry(100, **{token: 1.0})},
        )
    )
    assert token not in card and other not in card
    assert token.replace("_", "\\_") not in card and "s3cr" not in card
