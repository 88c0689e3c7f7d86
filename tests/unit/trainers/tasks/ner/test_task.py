"""The task ner: what a record asks and teaches, which records belong together, and scores worked out by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.checkpointing.disk.storage import file_sha256
from pitstop.configs.errors import DataError, SettingsError
from pitstop.examples.medical_ner.render import render
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import BadRecord, Record
from pitstop.trainers.data.splits import hold_out
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.tasks.ner import greedy
from pitstop.trainers.tasks.ner import task as ner_task
from pitstop.trainers.tasks.ner.scores import parse_items
from pitstop.trainers.tasks.ner.task import NerTask
from pitstop.trainers.tasks.ner.wording import prompt
from pitstop.trainers.tasks.sft import SftTask
from support.json_lines import write_rows
from support.ner_records import ASPIRIN, examples_of, ner_settings, on_processor

ROOT = Path(__file__).resolve().parents[5]
CORPUS = Path(os.environ.get("BC5CDR_DIR", ROOT.parent / "shared" / "data" / "bc5cdr"))


def _texts(task: NerTask, example: Example) -> tuple[str, str]:
    learnt = example.input_ids[example.supervised]
    return task.tokenizer.decode(example.prompt), task.tokenizer.decode(learnt)


def _load(task: NerTask, *specs: Path, **options: Any) -> Dataset:
    options = {"max_length": 512, "packing": False, **options}
    return load_dataset([str(spec) for spec in specs], task, ReadOptions(**options))


# Examples ---------------------------------------------------------------------------------------------------------


def test_a_record_asks_once_for_each_type(make_task: Callable[..., NerTask]) -> None:
    task = make_task(ASPIRIN)
    chemical, disease = examples_of(task, ASPIRIN)
    question, answer = _texts(task, chemical)
    assert question == f"<|start|>user\n{prompt(ASPIRIN['text'], 'chemical')}<|end|>\n<|start|>assistant\n"
    assert answer == "- Aspirin<|end|>"
    assert _texts(task, disease)[1] == "- pain<|end|>"
    assert json.loads(disease.reference) == {"type": "disease", "items": ["pain"]}
    assert chemical.prompt.tolist() == task.prompt_ids(prompt(ASPIRIN["text"], "chemical"))


def test_the_shipped_records_give_the_tokens_of_the_shipped_pairs(tokenizer: Any) -> None:
    spec = "example:medical_ner/records_train.jsonl"
    ours = load_dataset([spec], NerTask(tokenizer, ner_settings([spec])), ReadOptions(max_length=2048, packing=True))
    pairs = load_dataset(["example:medical_ner/train.jsonl"], SftTask(tokenizer), ReadOptions(max_length=2048, packing=True))
    assert ours.fingerprint == pairs.fingerprint


def test_what_the_text_does_not_name_is_answered_with_none(make_task: Callable[..., NerTask]) -> None:
    task = make_task(ASPIRIN)
    for entities in ({"chemical": [], "disease": []}, {}, {"chemical": None}):
        assert [_texts(task, e)[1] for e in examples_of(task, {"text": "x", "entities": entities})] == ["- none<|end|>"] * 2


def test_entities_are_named_in_their_order_and_once(make_task: Callable[..., NerTask]) -> None:
    task = make_task({"text": "t", "entities": {"d": []}})
    items = ["Pain", "fever", "pain", "back  pain", "PAIN"]
    (example,) = examples_of(task, {"text": "t", "entities": {"D": items}})
    assert _texts(task, example)[1] == "- Pain\n- fever\n- back pain<|end|>"


def test_spellings_of_one_type_are_one_type(make_task: Callable[..., NerTask]) -> None:
    record = {"text": "t", "entities": {"Cell-Line": ["HeLa"], "cell line": ["CHO"]}}
    task = make_task(record)
    assert task.entity_types() == ("cell_line",)
    assert _texts(task, examples_of(task, record)[0])[1] == "- HeLa\n- CHO<|end|>"


def test_types_are_those_of_all_the_training_data_and_evaluation_asks_for_the_same(tokenizer: Any, tmp_path: Path) -> None:
    one = write_rows(tmp_path / "a.jsonl", [{"text": "t", "entities": {"gene": ["g"]}}])
    (tmp_path / "b.pubtator").write_text("1|t|Pain.\n1\t0\t4\tPain\tDisease\n")
    held_out = write_rows(tmp_path / "c.jsonl", [{"text": "t", "entities": {"species": ["mouse"], "gene": ["h"]}}])
    task = NerTask(tokenizer, ner_settings([one, tmp_path / "b.pubtator"]))
    train = _load(task, one, tmp_path / "b.pubtator")
    evaluation = _load(task, held_out, split="validation")
    asked = [[json.loads(e.reference)["type"] for e in data.examples] for data in (train, evaluation)]
    assert asked == [["disease", "gene"] * 2, ["disease", "gene"]]


def test_tokens_are_kept_by_all_files_that_are_read_annotated_ones_too(tokenizer: Any, tmp_path: Path) -> None:
    task = NerTask(tokenizer, ner_settings([str(tmp_path)]))

    def content() -> str | None:
        return task.content(str(tmp_path), split="train", token=None, digest=file_sha256)

    contents = []
    for name, text in (("a.conll", "Aspirin\tB-Drug\n"), ("b.jsonl", "{}\n"), ("a.conll", "Aspirin\tB-Chemical\n")):
        (tmp_path / name).write_text(text)
        contents.append(content())
    assert None not in contents and len(set(contents)) == 3
    (tmp_path / "a.md").write_text("Not read.")
    assert content() != contents[-1], "that it is not read is told again out of the cache"


def test_named_types_are_asked_for_in_their_order_and_no_others(make_task: Callable[..., NerTask]) -> None:
    task = make_task(ASPIRIN, ner={"entity_types": ["Disease", "chemical", "disease"]})
    assert [json.loads(e.reference)["type"] for e in examples_of(task, ASPIRIN)] == ["disease", "chemical"]
    only = make_task(ASPIRIN, ner={"entity_types": ["chemical"]})
    assert len(examples_of(only, ASPIRIN)) == 1
    assert examples_of(only, {"prompt": "q", "completion": "- pain", "entity_type": "disease"}) == []


def test_named_types_need_no_training_data(tokenizer: Any, tmp_path: Path) -> None:
    elsewhere = write_rows(tmp_path / "test.jsonl", [ASPIRIN])
    task = NerTask(tokenizer, ner_settings(["/gone.jsonl"], ner={"entity_types": ["disease"]}))
    assert len(_load(task, elsewhere).examples) == 1
    with pytest.raises(DataError, match="The entity types to ask for are those of the training data") as caught:
        _load(NerTask(tokenizer, ner_settings(["/gone.jsonl"])), elsewhere)
    assert "--ner-entity-types" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("types", "hint"), [(["chemicals"], "Did you mean 'chemical'?"), (["gene"], "It has: chemical, disease.")]
)
def test_a_named_type_that_the_training_data_does_not_have_is_refused(
    make_task: Callable[..., NerTask], types: list[str], hint: str
) -> None:
    task = make_task(ASPIRIN, ner={"entity_types": types})
    with pytest.raises(SettingsError, match=f"the training data has no entity type '{types[0]}'") as caught:
        _load(task, *map(Path, task.settings.data.train))
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"prompt": "no text here {type}"}, "NER_PROMPT must hold"),
        ({"prompt": "what is in {text}"}, "NER_PROMPT must hold"),
        ({"entity_types": ["chemical", "--"]}, "NER_ENTITY_TYPES: '--' has no letter"),
    ],
)
def test_settings_that_ask_for_nothing_are_refused(tokenizer: Any, group: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        NerTask(tokenizer, ner_settings(ner=group))


def test_a_question_of_ones_own(make_task: Callable[..., NerTask]) -> None:
    task = make_task(ASPIRIN, ner={"prompt": "{text}\n{type}?"})
    assert task.tokenizer.decode(examples_of(task, ASPIRIN)[1].prompt).startswith(
        "<|start|>user\nAspirin eased her pain.\ndisease?<"
    )


def test_ready_pairs_are_taken_as_they_are(make_task: Callable[..., NerTask]) -> None:
    pair = {"prompt": "Name the drugs: A.", "completion": "These:\n* Aspirin.", "entity_type": "Chemical"}
    task = make_task(pair, {"prompt": "q", "completion": "- None"})
    (example,) = examples_of(task, pair)
    assert _texts(task, example) == (
        "<|start|>user\nName the drugs: A.<|end|>\n<|start|>assistant\n",
        "These:\n* Aspirin.<|end|>",
    )
    assert json.loads(example.reference) == {"type": "chemical", "items": ["Aspirin"]}
    assert json.loads(examples_of(task, {"prompt": "q", "completion": "- None"})[0].reference) == {"type": "entity", "items": []}


def test_pairs_of_types_that_are_not_asked_for_are_told(make_task: Callable[..., NerTask], tmp_path: Path) -> None:
    pair = {"prompt": "Name the drugs: A.", "completion": "- Aspirin", "entity_type": "Chemical"}
    others = [{**pair, "entity_type": "Disease"}, {**pair, "entity_type": "Gene"}]
    task = make_task(pair, *others, ner={"entity_types": ["chemical"]})
    counts = _load(task, write_rows(tmp_path / "some.jsonl", [pair, *others])).counts
    assert counts.read.as_dict() == {"read": 3, "used": 1, "left_out": 2, "malformed": 0}
    told = "2 pairs are left out, since their types are not asked for, first {path} line {line}."
    assert [str(n) for n in counts.notices] == [told.format(path=tmp_path / "some.jsonl", line=2)]
    with pytest.raises(DataError, match=r"none\.jsonl: none of its 2 records gives an example\.") as caught:
        _load(task, write_rows(tmp_path / "none.jsonl", others))
    assert caught.value.hint == told.format(path=tmp_path / "none.jsonl", line=1)


def test_csv_holds_entities_as_json(make_task: Callable[..., NerTask]) -> None:
    task = make_task(ASPIRIN)
    assert [e.reference for e in examples_of(task, {**ASPIRIN, "entities": json.dumps(ASPIRIN["entities"])})] == [
        e.reference for e in examples_of(task, ASPIRIN)
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": "t"}, "wanted 'text' and 'entities'.*its fields: text"),
        ({"text": "t", "entities": ["a"]}, "wanted 'text' and 'entities'"),
        ({"text": "t", "entities": "{oops"}, "'entities' is text, but not valid JSON: .* at column 2"),
        (
            {"text": "t", "entities": '{"d": [' + "9" * 5000 + "]}"},
            "'entities' is text, but JSON that cannot be used: .*4300 digits",
        ),
        ({"text": "t", "entities": "[" * 100_000}, "'entities' is text, but JSON nested more than 200 deep"),
        ({"text": "t", "entities": b"{}"}, "wanted 'text' and 'entities'"),
        ({"text": b"t", "entities": {}}, "'text' is not text"),
        ({"text": "t", "entities": {"d": "pain"}}, "the entities of type 'd' are not a list of texts"),
        ({"text": "t", "entities": {"d": [3]}}, "the entities of type 'd' are not a list of texts"),
        ({"text": "t", "entities": {"?": []}}, "the entity type '\\?' has no letter or digit"),
        ({"text": "t", "entities": {"d": ["none"]}}, "an answer cannot name the entity 'none'"),
        ({"text": "t", "entities": {"d": [" "]}}, "an answer cannot name the entity ' '"),
        ({"text": " ", "entities": {"d": []}}, "'text' is empty"),
        ({"entities": {"d": []}}, "'text' is not text"),
        ({"prompt": "q", "completion": "aspirin"}, "the completion has neither '- item' lines nor '- none'"),
        ({"prompt": "q", "completion": " "}, "'completion' is empty"),
    ],
)
def test_what_cannot_be_used_says_why(make_task: Callable[..., NerTask], fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        examples_of(make_task({"text": "t", "entities": {"d": []}}), fields)


def test_bad_rows_are_named_or_counted(make_task: Callable[..., NerTask]) -> None:
    task = make_task(ASPIRIN, {"text": "t", "entities": {"disease": ["none"]}})
    (spec,) = map(Path, task.settings.data.train)
    with pytest.raises(DataError, match=r"train\.jsonl line 2: an answer cannot name"):
        _load(task, spec)
    counts = _load(task, spec, skip_bad_rows=True).counts
    assert (counts.used, counts.bad) == (2, 1)


# Articles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "group"),
    [
        ({"id": "bc5cdr-0001"}, "bc5cdr-0001"),
        ({"id": "record_12"}, "record_12"),
        ({"id": "patients-3"}, "patients-3"),
        ({"id": "2024-0012"}, "2024-0012"),
        ({"id": "article7-sentence-3"}, "article7"),
        ({"id": "article7_s12"}, "article7"),
        ({"id": "x:chunk4"}, "x"),
        ({"id": "8701013_4"}, "8701013"),
        ({"id": "8701013:4"}, "8701013"),
        ({"id": "PMC77-4"}, "PMC77"),
        ({"id": "8701013"}, "8701013"),
        ({"id": "a-1", "pmid": 8701013}, "8701013"),
        ({"id": "a-1", "doc_id": "d", "article": "e"}, "e"),
        ({"id": "mner-001-disease", "entity_type": "disease"}, "mner-001"),
        ({}, "here"),
    ],
)
def test_the_article_of_a_record(make_task: Callable[..., NerTask], fields: dict[str, Any], group: str) -> None:
    record = {"prompt": "q", "completion": "- none"} | fields if "entity_type" in fields else {**ASPIRIN, "id": None, **fields}
    task = make_task(ASPIRIN)
    found = {example.group for example in examples_of(task, record)}
    assert found == {group}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.floats(0.05, 0.5), st.integers(0, 2**32 - 1))
def test_an_article_never_stands_on_both_sides_of_a_split(sentences: list[int], fraction: float, seed: int) -> None:
    ids = [f"1234{article}-s{number}" for article, count in enumerate(sentences) for number in range(count)]
    groups = [ner_task._group(Record({"id": identifier}, "")) for identifier in ids for _ in ("chemical", "disease")]
    examples = [_tiny_example(number, group) for number, group in enumerate(groups)]
    parts = hold_out(_dataset(examples), fraction, seed=seed, max_length=8, packing=False)
    sides = [{example.group for example in part.examples} for part in parts]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert sum(len(part.examples) for part in parts) == len(examples)


def _tiny_example(number: int, group: str, reference: str = "") -> Example:
    import numpy as np

    return Example(np.array([1, 5 + number, 2], dtype=np.int32), np.array([False, False, True]), reference, group)


def _dataset(examples: Sequence[Example]) -> Dataset:
    from pitstop.trainers.data.counts import Counts

    counts = Counts(len(examples), len(examples), 0, 0, (), 3 * len(examples), len(examples))
    return Dataset(examples, max_length=8, packing=False, counts=counts)


# Scores -----------------------------------------------------------------------------------------------------------


def _scored(
    task: NerTask, monkeypatch: pytest.MonkeyPatch, rows: Sequence[tuple[str, list[str], str]], limit: int | None = None
) -> dict[str, float]:
    """The metrics of answers: (type, gold, answer) rows."""
    examples = [_tiny_example(i, "", json.dumps({"type": kind, "items": gold})) for i, (kind, gold, _) in enumerate(rows)]
    monkeypatch.setattr(greedy, "greedy_answers", lambda chosen, scoring: [rows[int(e.input_ids[1]) - 5][2] for e in chosen])
    scoring = Scoring(None, task.tokenizer, None, lambda: None, batch_size=2, max_new_tokens=8, limit=limit)  # type: ignore[arg-type,return-value]
    return task.score(_dataset(examples), scoring)


def test_the_oracle(make_task: Callable[..., NerTask], monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _scored(make_task(ASPIRIN), monkeypatch, [("chemical", ["a", "b", "c"], "- a\n- b")])
    for prefix in ("ner", "ner_chemical"):
        figures = [scores[f"{prefix}_{ratio}"] for ratio in ("precision", "recall", "f1")]
        assert figures == pytest.approx([1.0, 2 / 3, 0.8])
    assert scores["ner_exact_match"] == 0.0


def test_types_are_scored_apart_and_counts_are_added_before_they_are_divided(
    make_task: Callable[..., NerTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ("chemical", ["a", "b", "c"], "- a\n- b"),  # 2 right of 2, 3 wanted
        ("disease", ["x"], "- X\n- y\n- z"),  # 1 of 3, 1 wanted
        ("disease", [], "- none"),  # right, and nothing to count
        ("disease", ["w"], "no list"),  # 0 of 0, 1 wanted
    ]
    scores = _scored(make_task(ASPIRIN), monkeypatch, rows)
    assert scores["ner_chemical_f1"] == pytest.approx(0.8)
    assert scores["ner_disease_precision"] == pytest.approx(1 / 3) and scores["ner_disease_recall"] == pytest.approx(1 / 2)
    assert scores["ner_disease_f1"] == pytest.approx(2 / 5)
    assert scores["ner_precision"] == scores["ner_recall"] == scores["ner_f1"] == pytest.approx(3 / 5)
    assert scores["ner_exact_match"] == pytest.approx(1 / 4)
    assert _scored(make_task(ASPIRIN), monkeypatch, rows, limit=1)["ner_f1"] == pytest.approx(0.8)


@pytest.mark.parametrize("limit", [None, 1, 3, 0])
def test_the_metrics_promised_are_the_metrics_given(
    make_task: Callable[..., NerTask], monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    rows = [("chemical", ["a"], "- a"), ("chemical", ["a"], "- a"), ("disease", ["x"], "- none")]
    task = make_task(ASPIRIN, evaluation={"score_examples": limit})
    examples = [_tiny_example(i, "", json.dumps({"type": kind, "items": gold})) for i, (kind, gold, _) in enumerate(rows)]
    promised = task.metrics(_dataset(examples))
    assert set(promised.values()) == {"max"}
    assert list(promised) == [*_scored(task, monkeypatch, rows, limit=limit or None)]


# Generation -------------------------------------------------------------------------------------------------------


def test_a_signal_is_looked_for_between_batches(make_task: Callable[..., NerTask], load_tiny: Callable[..., Any]) -> None:
    from pitstop.trainers.loop.scoring import Interrupted

    task, model = make_task(ASPIRIN), load_tiny()
    asked: list[int] = []

    def give_up() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(Interrupted):
        task.score(_dataset_of(examples_of(task, ASPIRIN)), on_processor(model, task.tokenizer, batch_size=1, give_up=give_up))
    assert len(asked) == 2


def _dataset_of(examples: Sequence[Example]) -> Dataset:
    dataset = _dataset(examples[:0])
    dataset.examples = list(examples)
    return dataset


def test_scoring_leaves_model_and_generators_as_they_were(
    make_task: Callable[..., NerTask], load_tiny: Callable[..., Any]
) -> None:
    import torch

    task, model = make_task(ASPIRIN), load_tiny()
    model.train()
    before = (torch.get_rng_state(), model.config._attn_implementation, {n: p.clone() for n, p in model.named_parameters()})
    task.score(_dataset_of(examples_of(task, ASPIRIN)), on_processor(model, task.tokenizer))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert model.config._attn_implementation == before[1]
    assert all(module.training for module in model.modules())
    assert all(torch.equal(p, before[2][n]) for n, p in model.named_parameters())


# Real data --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (CORPUS / "train.jsonl").is_file(), reason="the BC5CDR records are not beside the project")
def test_bc5cdr_gives_two_examples_a_record_with_the_entities_in_their_order(make_task: Callable[..., NerTask]) -> None:
    from pitstop.trainers.data.records import BadRows

    task = make_task(ASPIRIN)
    records = list(read_records(str(CORPUS / "validation.jsonl"), BadRows(False)))
    for record in records[:50]:
        chemical, disease = task.examples(record)
        assert chemical.group == disease.group == record.fields["id"]
        for example, kind in ((chemical, "chemical"), (disease, "disease")):
            pair = next(pair for pair in render(record.fields) if pair["entity_type"] == kind)
            assert _texts(task, example)[1] == pair["completion"] + "<|end|>"
            assert json.loads(example.reference)["items"] == parse_items(pair["completion"])


def test_the_shipped_records_are_package_data() -> None:
    assert (files("pitstop.examples.medical_ner") / "records_train.jsonl").is_file()
