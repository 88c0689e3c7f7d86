"""PubTator files: articles and their mentions, and what is said about lines that cannot be used."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.annotated_files import KIND, PUBTATOR, WORD, in_files, read_place, read_text, refusal


@pytest.mark.parametrize("name", ["a.pubtator", "a.txt", "a.tsv"])
def test_pubtator_articles_become_records_with_mentions_in_the_order_of_the_text(tmp_path: Path, name: str) -> None:
    articles, _ = read_text(tmp_path / name, PUBTATOR)
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
    expected, _ = read_text(tmp_path / "a.pubtator", PUBTATOR)
    assert read_text(tmp_path / "b.pubtator", PUBTATOR.replace("\n\n", "\n"))[0] == expected
    assert read_text(tmp_path / "c.pubtator", "\ufeff" + PUBTATOR.replace("\n", "\r\n") + "\r\n\r\n")[0] == expected


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
    message = refusal(tmp_path / "a.pubtator", text)
    assert f"a.pubtator line {line}: " in message and reason in message
    articles, bad = read_place(tmp_path / "a.pubtator", skip=True)
    assert "77" in [article["id"] for article in articles] and bad.count == 1


def test_text_behind_an_annotation_is_refused(tmp_path: Path) -> None:
    text = "1|t|Pain.\n1\t0\t4\tPain\tDisease\n1|a|More.\n"
    assert "line 3: text after the first annotation" in refusal(tmp_path / "a.pubtator", text)


@pytest.mark.parametrize("cell", ["9" * 5000, "0" * 5000 + "9" * 20])
def test_an_offset_of_thousands_of_digits_is_a_bad_line(tmp_path: Path, cell: str) -> None:
    text = f"1|t|Pain.\n1\t0\t{cell}\tPain\tDisease\n\n2|t|Ache.\n2\t0\t4\tAche\tDisease\n"
    path = tmp_path / "x.pubtator"
    assert f"{path} line 2: the offsets" in refusal(path, text)
    rows, bad = read_text(path, text, skip=True)
    assert [row["id"] for row in rows] == ["2"] and bad.count == 1


@pytest.mark.parametrize("cut", [2, 3], ids=["before the abstract", "before the annotations"])
@pytest.mark.parametrize("blank", ["", "  ", "\r"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_blank_line_within_an_article_does_not_part_it(tmp_path: Path, cut: int, blank: str, skip: bool) -> None:
    """Else its title would be an article that names nothing, and the rest one bad row."""
    whole, _ = read_text(tmp_path / "whole.pubtator", PUBTATOR)
    lines = PUBTATOR.split("\n")
    lines.insert(cut - 1, blank)
    rows, bad = read_text(tmp_path / "cut.pubtator", "\n".join(lines), skip=skip)
    assert rows == whole and bad.count == 0


def test_an_article_with_a_bad_line_behind_a_blank_one_is_left_out_whole(tmp_path: Path) -> None:
    text = "1|t|Pain.\n\n1|a|Ache.\n\n1\t0\t3\tPain\tDisease\n\n2|t|Ache.\n"
    rows, bad = read_text(tmp_path / "x.pubtator", text, skip=True)
    assert [row["id"] for row in rows] == ["2"] and bad.count == 1 and "line 5: offsets 0 to 3" in bad.reasons[0]


@st.composite
def _articles(draw: st.DrawFn) -> tuple[str, str, list[tuple[int, int, str]]]:
    title, abstract = (" ".join(draw(st.lists(WORD, min_size=1, max_size=6))) for _ in range(2))
    text = f"{title} {abstract}"
    mentions = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, min(len(text), start + 12)))
        mentions.append((start, end, draw(KIND)))
    return title, abstract, mentions


@in_files
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
        rows, _ = read_text(Path(directory) / "a.pubtator", "\n\n".join(blocks) + "\n")
    assert [(row["id"], row["text"], row["entities"]) for row in rows] == expected
