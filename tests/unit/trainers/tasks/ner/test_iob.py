"""IOB files: sentences, tag schemes, and what is said about lines that cannot be used."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.data.files.places import ANNOTATED_SUFFIXES
from pitstop.trainers.tasks.ner.iob import spans
from support.annotated_files import IOB, KIND, WORD, in_files, read_place, read_text, refusal


@pytest.mark.parametrize("suffix", [suffix for suffix in ANNOTATED_SUFFIXES if suffix != ".pubtator"])
def test_iob_sentences_become_records_that_know_their_document(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    sentences, _ = read_text(path, IOB)
    assert sentences == [
        {
            "id": f"{path} line 3",
            "doc_id": f"{path} document 1",
            "text": "Aspirin eased chronic back pain .",
            "entities": {"Chemical": ["Aspirin"], "Disease": ["chronic back pain"]},
        },
        {"id": f"{path} line 10", "doc_id": f"{path} document 1", "text": "Nothing helped", "entities": {}},
    ]


def test_documents_are_counted_and_need_no_blank_line_after_them(tmp_path: Path) -> None:
    path = tmp_path / "a.iob"
    sentences, _ = read_text(path, "-DOCSTART-\tO\nA O\nb O\n-DOCSTART-\tO\nC O\n\nD O\n")
    assert [(s["text"], s["doc_id"]) for s in sentences] == [
        ("A b", f"{path} document 1"),
        ("C", f"{path} document 2"),
        ("D", f"{path} document 2"),
    ]
    assert "doc_id" not in read_text(path, "A O\n\nB O\n")[0][0]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-x I-x O", [(0, 2, "x")]),
        ("I-x I-x O I-x", [(0, 2, "x"), (3, 4, "x")]),  # IOB1
        ("I-x B-x I-y", [(0, 1, "x"), (1, 2, "x"), (2, 3, "y")]),
        ("B-x I-x E-x S-x O", [(0, 3, "x"), (3, 4, "x")]),  # BIOES
        ("B-x L-x U-y U-y", [(0, 2, "x"), (2, 3, "y"), (3, 4, "y")]),  # BILOU
        ("B-x E-x I-x", [(0, 2, "x"), (2, 3, "x")]),
        ("B-x L-x I-x U-x I-x", [(0, 2, "x"), (2, 3, "x"), (3, 4, "x"), (4, 5, "x")]),
        ("B-x S-x", [(0, 1, "x"), (1, 2, "x")]),
        ("O O", []),
        ("B I O B", [(0, 2, "entity"), (3, 4, "entity")]),
        ("B-cell-line I-cell-line", [(0, 2, "cell-line")]),
    ],
)
def test_tag_schemes(tmp_path: Path, tags: str, found: list[tuple[int, int, str]]) -> None:
    words = [f"w{i}" for i in range(len(tags.split()))]
    rows, _ = read_text(tmp_path / "a.bio", "".join(f"{word} {tag}\n" for word, tag in zip(words, tags.split(), strict=True)))
    expected: dict[str, list[str]] = {}
    for start, end, kind in found:
        expected.setdefault(kind, []).append(" ".join(words[start:end]))
    assert rows[0]["entities"] == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [("lonely", "wanted a token and its tag, found 'lonely'"), ("a\tX-y", "the tag 'X-y' is neither"), ("a b", "the tag 'b'")],
)
def test_a_sentence_with_a_bad_line_is_one_bad_row(tmp_path: Path, line: str, reason: str) -> None:
    message = refusal(tmp_path / "a.conll", f"Good O\n\nfine O\n{line}\nBad O\n\nGood O\n")
    assert "a.conll line 4: " in message and reason in message
    rows, bad = read_place(tmp_path / "a.conll", skip=True)
    assert [row["text"] for row in rows] == ["Good", "Good"] and bad.count == 1


@pytest.mark.parametrize("text", ["a\tO\nb\x00\tX\n\nc\tO\n", b"a\tO\nGr\xf6\tO\n\nc\tO\n"], ids=["a NUL", "bytes"])
def test_a_sentence_with_a_line_that_cannot_be_read_is_one_bad_row(tmp_path: Path, text: str | bytes) -> None:
    rows, bad = read_text(tmp_path / "x.iob", text, skip=True)
    assert [row["text"] for row in rows] == ["c"] and bad.count == 1 and " line 2: " in bad.reasons[0]


@st.composite
def _sentences(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, int, str]]]:
    tokens, marked = [], []
    for _ in range(draw(st.integers(1, 5))):
        piece = draw(st.lists(WORD.filter(lambda word: not word.startswith("-DOC")), min_size=1, max_size=3))
        if draw(st.booleans()):
            marked.append((len(tokens), len(tokens) + len(piece), draw(KIND)))
        tokens += piece
    return tokens, marked


def _iob2(length: int, marked: list[tuple[int, int, str]]) -> list[str]:
    tags = ["O"] * length
    for start, end, kind in marked:
        tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return tags


def _bioes(length: int, marked: list[tuple[int, int, str]]) -> list[str]:
    tags = _iob2(length, marked)
    for start, end, kind in marked:
        tags[end - 1] = f"{'S' if end - start == 1 else 'E'}-{kind}"
    return tags


@in_files
@given(st.lists(_sentences(), min_size=1, max_size=4), st.sampled_from([_iob2, _bioes]), st.sampled_from([".conll", ".iob"]))
def test_any_tagged_file_is_read_back(sentences: list[Any], scheme: Any, suffix: str) -> None:
    lines = []
    for tokens, marked in sentences:
        lines += [f"{token}\tNN\t{tag}" for token, tag in zip(tokens, scheme(len(tokens), marked), strict=True)] + [""]
    with tempfile.TemporaryDirectory() as directory:
        rows, _ = read_text(Path(directory) / f"a{suffix}", "\n".join(lines))
    expected = []
    for tokens, marked in sentences:
        entities: dict[str, list[str]] = {}
        for start, end, kind in marked:
            entities.setdefault(kind, []).append(" ".join(tokens[start:end]))
        expected.append((" ".join(tokens), entities))
    assert [(row["text"], row["entities"]) for row in rows] == expected


@given(st.lists(st.tuples(st.sampled_from("BIESLUO"), st.sampled_from(["x", "y"])), max_size=12))
def test_spans_are_in_order_apart_and_cover_every_tag_but_o(tags: list[tuple[str, str]]) -> None:
    found = spans(tags)
    covered = [i for start, end, _ in found for i in range(start, end)]
    assert covered == [i for i, (place, _) in enumerate(tags) if place != "O"]
    assert all(tags[i][1] == kind for start, end, kind in found for i in range(start, end))
