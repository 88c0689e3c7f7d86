"""PubTator and IOB files: what is read out of them, and what is said about lines that cannot be used."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.places import ANNOTATED_SUFFIXES, read_records
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.ner.annotated import ANNOTATED
from pitstop.trainers.tasks.ner.iob import spans
from pitstop.trainers.tasks.sft import SftTask

PUBTATOR = """\
2004|t|Naloxone reverses the effect of clonidine.
2004|a|In rats, naloxone raised blood pressure: hypertension.
2004\t0\t8\tNaloxone\tChemical\tD009270
2004\t84\t96\thypertension\tDisease\tD006973
2004\t52\t60\tnaloxone\tChemical\tD009270
2004\tCID\tD009270\tD006973

77|t|No abstract, Ärger and pain.
77\t23\t27\tpain\tDisease|Sign\tD010146
"""
IOB = """\
-DOCSTART- -X- O O

Aspirin NN B-NP B-Chemical
eased VBD O O
chronic JJ O B-Disease
back NN O I-Disease
pain NN O I-Disease
. . O O

Nothing NN O O
helped VBD O O
"""


def _read(path: Path, text: str | bytes, *, skip: bool = False) -> tuple[list[dict[str, Any]], BadRows]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return _again(path, skip=skip)


def _again(path: Path, *, skip: bool = False) -> tuple[list[dict[str, Any]], BadRows]:
    bad = BadRows(skip)
    return [record.fields for record in read_records(str(path), bad, extra_formats=ANNOTATED)], bad


def _refused(path: Path, text: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        _read(path, text)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.pubtator", "a.txt", "a.tsv"])
def test_pubtator_articles_become_records_with_mentions_in_the_order_of_the_text(tmp_path: Path, name: str) -> None:
    articles, _ = _read(tmp_path / name, PUBTATOR)
    assert articles == [
        {
            "id": "2004",
            "doc_id": "2004",
            "text": "Naloxone reverses the effect of clonidine. In rats, naloxone raised blood pressure: hypertension.",
            "entities": {"Chemical": ["Naloxone", "naloxone"], "Disease": ["hypertension"]},
        },
        {
            "id": "77",
            "doc_id": "77",
            "text": "No abstract, Ärger and pain.",
            "entities": {"Disease": ["pain"], "Sign": ["pain"]},
        },
    ]


def test_articles_need_no_blank_line_between_them_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    expected, _ = _read(tmp_path / "a.pubtator", PUBTATOR)
    assert _read(tmp_path / "b.pubtator", PUBTATOR.replace("\n\n", "\n"))[0] == expected
    assert _read(tmp_path / "c.pubtator", "\ufeff" + PUBTATOR.replace("\n", "\r\n") + "\r\n\r\n")[0] == expected


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        (("\t0\t8\t", "\t1\t9\t"), 3, "offsets 1 to 9 hold 'aloxone ', not the mention 'Naloxone'"),
        (("\t84\t96\t", "\t84\t9600\t"), 4, "not the mention"),
        (("\t0\t8\t", "\t8\t8\t"), 3, "the offsets 8 and 8 enclose nothing"),
        (("\t0\t8\t", "\t-8\t8\t"), 3, "are not whole numbers"),
        (("\t0\t8\t", "\tx0\t8\t"), 3, "are not whole numbers"),
        (("\tChemical\tD009270\n2004\t84", "\n2004\t84"), 3, "found 4 columns"),
        (("Naloxone\tChemical", "Naloxone\t|"), 3, "has no type"),
        (("2004\t0", "2005\t0"), 3, "a line of article '2005' among those of '2004'"),
        (("2004|a|", "2005|a|"), 2, "a line of article '2005' among those of '2004'"),
        (("2004|t|Naloxone reverses the effect of clonidine.\n", ""), 1, "article 2004 has no title line"),
        (("2004|a|In", "2004|a|x\n2004|a|In"), 3, "a second '|a|' line"),
        (("2004\tCID", "2004|a|x\n2004\tCID"), 6, "a second '|a|' line"),
        (("2004|t|", "2004\t0\t8\tNaloxone\tChemical\n2004|t|"), 1, "an annotation without a title"),
    ],
)
def test_an_article_with_a_bad_line_is_one_bad_row_with_its_line(
    tmp_path: Path, change: tuple[str, str], line: int, reason: str
) -> None:
    text = PUBTATOR.replace(*change, 1)
    assert text != PUBTATOR
    message = _refused(tmp_path / "a.pubtator", text)
    assert f"a.pubtator line {line}: " in message and reason in message
    articles, bad = _again(tmp_path / "a.pubtator", skip=True)
    assert "77" in [article["id"] for article in articles] and bad.count == 1


def test_text_behind_an_annotation_is_refused(tmp_path: Path) -> None:
    text = "1|t|Pain.\n1\t0\t4\tPain\tDisease\n1|a|More.\n"
    assert "line 3: text after the first annotation" in _refused(tmp_path / "a.pubtator", text)


@pytest.mark.parametrize("text", [PUBTATOR.replace("rats", "r\udcfets"), IOB.replace("eased", "e\udcfeed")])
def test_bytes_that_are_no_text_are_a_bad_row_with_its_line(tmp_path: Path, text: str) -> None:
    raw = text.encode(errors="surrogateescape")
    number = next(i for i, line in enumerate(raw.splitlines(), start=1) if b"\xfe" in line)
    assert f"line {number}: not UTF-8 text" in _refused(tmp_path / "a.txt", raw)
    rows, bad = _again(tmp_path / "a.txt", skip=True)
    assert len(rows) == 1 and bad.count == 1


@pytest.mark.parametrize("suffix", [suffix for suffix in ANNOTATED_SUFFIXES if suffix != ".pubtator"])
def test_iob_sentences_become_records_that_know_their_document(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    sentences, _ = _read(path, IOB)
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
    sentences, _ = _read(path, "-DOCSTART-\tO\nA O\nb O\n-DOCSTART-\tO\nC O\n\nD O\n")
    assert [(s["text"], s["doc_id"]) for s in sentences] == [
        ("A b", f"{path} document 1"),
        ("C", f"{path} document 2"),
        ("D", f"{path} document 2"),
    ]
    assert "doc_id" not in _read(path, "A O\n\nB O\n")[0][0]


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
    rows, _ = _read(tmp_path / "a.bio", "".join(f"{word} {tag}\n" for word, tag in zip(words, tags.split(), strict=True)))
    expected: dict[str, list[str]] = {}
    for start, end, kind in found:
        expected.setdefault(kind, []).append(" ".join(words[start:end]))
    assert rows[0]["entities"] == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [("lonely", "wanted a token and its tag, found 'lonely'"), ("a\tX-y", "the tag 'X-y' is neither"), ("a b", "the tag 'b'")],
)
def test_a_sentence_with_a_bad_line_is_one_bad_row(tmp_path: Path, line: str, reason: str) -> None:
    message = _refused(tmp_path / "a.conll", f"Good O\n\nfine O\n{line}\nBad O\n\nGood O\n")
    assert "a.conll line 4: " in message and reason in message
    rows, bad = _again(tmp_path / "a.conll", skip=True)
    assert [row["text"] for row in rows] == ["Good", "Good"] and bad.count == 1


def test_text_of_neither_format_is_refused_but_passed_over_in_a_directory(tmp_path: Path) -> None:
    message = _refused(tmp_path / "LICENCE.txt", "You may use this data.\n")
    assert "LICENCE.txt: neither PubTator nor IOB text." in message
    (tmp_path / "a.txt").write_text(PUBTATOR)
    (tmp_path / "b.tsv").write_text(IOB)
    (tmp_path / "c.jsonl").write_text('{"text": "t", "entities": {}}\n')
    rows, _ = _again(tmp_path)
    assert [row.get("id") for row in rows] == ["2004", "77", f"{tmp_path}/b.tsv line 3", f"{tmp_path}/b.tsv line 10", None]


def test_other_tasks_say_who_reads_such_a_file_and_similar_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "train.pubtator").write_text(PUBTATOR)
    with pytest.raises(DataError) as caught:
        list(SftTask(None).records(str(tmp_path / "train.pubtator"), BadRows(False), split="train", token=None))
    assert "--task ner" in str(caught.value.hint)
    for spec in (tmp_path / "trian.pubtator", Path("data/train.conll")):
        with pytest.raises(DataError, match="No data at") as caught:
            _again(spec)
    with pytest.raises(DataError) as caught:
        _again(tmp_path / "trian.pubtator")
    assert caught.value.hint == f"Did you mean {tmp_path}/train.pubtator?"


# What is written is read back -------------------------------------------------------------------------------------

# Files are written: how long that takes on a busy machine says nothing.
_in_files = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_WORD = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|"), min_size=1, max_size=6)
_KIND = st.sampled_from(["chemical", "disease", "cell line", "x-y"])


@st.composite
def _articles(draw: st.DrawFn) -> tuple[str, str, list[tuple[int, int, str]]]:
    title, abstract = (" ".join(draw(st.lists(_WORD, min_size=1, max_size=6))) for _ in range(2))
    text = f"{title} {abstract}"
    mentions = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, min(len(text), start + 12)))
        mentions.append((start, end, draw(_KIND)))
    return title, abstract, mentions


@_in_files
@given(st.lists(_articles(), min_size=1, max_size=4))
def test_any_pubtator_file_is_read_back(articles: list[tuple[str, str, list[tuple[int, int, str]]]]) -> None:
    blocks, expected = [], []
    for number, (title, abstract, mentions) in enumerate(articles):
        text = f"{title} {abstract}"
        lines = [f"{number}|t|{title}", f"{number}|a|{abstract}"]
        lines += [f"{number}\t{start}\t{end}\t{text[start:end]}\t{kind}\tID" for start, end, kind in mentions]
        blocks.append("\n".join(lines))
        entities: dict[str, list[str]] = {}
        for start, end, kind in sorted(mentions, key=lambda m: m[:2]):
            entities.setdefault(kind, []).append(text[start:end])
        expected.append((str(number), text, entities))
    with tempfile.TemporaryDirectory() as directory:
        rows, _ = _read(Path(directory) / "a.pubtator", "\n\n".join(blocks) + "\n")
    assert [(row["id"], row["text"], row["entities"]) for row in rows] == expected


@st.composite
def _sentences(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, int, str]]]:
    tokens, marked = [], []
    for _ in range(draw(st.integers(1, 5))):
        piece = draw(st.lists(_WORD.filter(lambda word: not word.startswith("-DOC")), min_size=1, max_size=3))
        if draw(st.booleans()):
            marked.append((len(tokens), len(tokens) + len(piece), draw(_KIND)))
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


@_in_files
@given(st.lists(_sentences(), min_size=1, max_size=4), st.sampled_from([_iob2, _bioes]), st.sampled_from([".conll", ".iob"]))
def test_any_tagged_file_is_read_back(sentences: list[Any], scheme: Any, suffix: str) -> None:
    lines = []
    for tokens, marked in sentences:
        lines += [f"{token}\tNN\t{tag}" for token, tag in zip(tokens, scheme(len(tokens), marked), strict=True)] + [""]
    with tempfile.TemporaryDirectory() as directory:
        rows, _ = _read(Path(directory) / f"a{suffix}", "\n".join(lines))
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


@_in_files
@given(st.binary(max_size=200), st.sampled_from([".pubtator", ".conll", ".txt"]))
def test_any_bytes_are_records_bad_rows_or_a_refusal(raw: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            rows, _ = _read(Path(directory) / f"a{suffix}", raw, skip=True)
        except DataError as error:
            assert "neither PubTator nor IOB" in error.message
        else:
            assert all(row["text"] is not None for row in rows)


@pytest.mark.parametrize("cell", ["9" * 5000, "0" * 5000 + "9" * 20])
def test_an_offset_of_thousands_of_digits_is_a_bad_line(tmp_path: Path, cell: str) -> None:
    text = f"1|t|Pain.\n1\t0\t{cell}\tPain\tDisease\n\n2|t|Ache.\n2\t0\t4\tAche\tDisease\n"
    path = tmp_path / "x.pubtator"
    assert f"{path} line 2: the offsets" in _refused(path, text)
    rows, bad = _read(path, text, skip=True)
    assert [row["id"] for row in rows] == ["2"] and bad.count == 1


@pytest.mark.parametrize("text", ["a\tO\nb\x00\tX\n\nc\tO\n", b"a\tO\nGr\xf6\tO\n\nc\tO\n"], ids=["a NUL", "bytes"])
def test_a_sentence_with_a_line_that_cannot_be_read_is_one_bad_row(tmp_path: Path, text: str | bytes) -> None:
    rows, bad = _read(tmp_path / "x.iob", text, skip=True)
    assert [row["text"] for row in rows] == ["c"] and bad.count == 1 and " line 2: " in bad.reasons[0]


@pytest.mark.parametrize("cut", [2, 3], ids=["before the abstract", "before the annotations"])
@pytest.mark.parametrize("blank", ["", "  ", "\r"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_blank_line_within_an_article_does_not_part_it(tmp_path: Path, cut: int, blank: str, skip: bool) -> None:
    """Else its title would be an article that names nothing, and the rest one bad row."""
    whole, _ = _read(tmp_path / "whole.pubtator", PUBTATOR)
    lines = PUBTATOR.split("\n")
    lines.insert(cut - 1, blank)
    rows, bad = _read(tmp_path / "cut.pubtator", "\n".join(lines), skip=skip)
    assert rows == whole and bad.count == 0


def test_an_article_with_a_bad_line_behind_a_blank_one_is_left_out_whole(tmp_path: Path) -> None:
    text = "1|t|Pain.\n\n1|a|Ache.\n\n1\t0\t3\tPain\tDisease\n\n2|t|Ache.\n"
    rows, bad = _read(tmp_path / "x.pubtator", text, skip=True)
    assert [row["id"] for row in rows] == ["2"] and bad.count == 1 and "line 5: offsets 0 to 3" in bad.reasons[0]


@pytest.mark.parametrize(
    ("name", "text", "count"), [("x.PubTator", PUBTATOR, 2), ("x.TXT", PUBTATOR, 2), ("x.IOB", IOB, 2), ("x.Tsv", IOB, 2)]
)
def test_endings_are_known_in_any_case(tmp_path: Path, name: str, text: str, count: int) -> None:
    assert len(_read(tmp_path / name, text)[0]) == count
    (tmp_path / "LICENSE.TXT").write_text("Do what you like.")
    assert len(_again(tmp_path)[0]) == count
