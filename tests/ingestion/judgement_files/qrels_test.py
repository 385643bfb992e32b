from __future__ import annotations

import dataclasses
import gzip

import pytest

from dsirm_jax.ingestion.formats.file_starts import FileStart
from dsirm_jax.ingestion.judgement_files.qrels import Qrels
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import raw_rows, values

JUDGED = ("query", "item_id", "label")


def read(path, text, *, queries=()):
    path.write_text(text, encoding="utf-8")
    parts, findings = Qrels().read([str(path)], queries=[str(file) for file in queries])
    return *raw_rows(parts), [finding.text for finding in findings]


@pytest.mark.parametrize("gap", [" ", "\t", "   "], ids=["space", "tab", "several spaces"])
def test_topics_that_are_numbers_get_their_texts(tmp_path, gap):
    topics = tmp_path / "topics.tsv"
    topics.write_text("301\tred shoe\n302\tblue mug\n", encoding="utf-8")
    lines = [("301", "0", "A-1", "2"), ("302", "0", "A-2", "-1"), ("303", "0", "A-1", "0")]
    text = "\n".join(map(gap.join, lines))
    rows, unreadable, _ = read(tmp_path / "judged.qrels", text, queries=[topics])
    assert values(rows, "row", *JUDGED) == [
        (1, "red shoe", "A-1", "2"),
        (2, "blue mug", "A-2", "-1"),
    ]
    assert unreadable == [(3, "303", "unknown query_id")]


@pytest.mark.parametrize(
    "topics", [("301", "302"), ("q1", "q2"), ("MB-007", "MB-008")], ids=["numbers", "q", "codes"]
)
def test_an_id_never_becomes_a_text(tmp_path, topics):
    text = "".join(f"{topic} 0 A 1\n" for topic in topics)
    with pytest.raises(InputError, match=rf"{topics[0]}.*bind Tables.queries"):
        read(tmp_path / "judged.qrels", text)


def test_topics_that_are_texts_are_queries(tmp_path):
    text = 'red 12" shoe\t0\tA 1\t2\n\n501\tQ0\tA2\t1.5\n'
    rows, unreadable, findings = read(tmp_path / "judged.tsv", text)
    assert values(rows, "row", *JUDGED) == [
        (1, 'red 12" shoe', "A 1", "2"),
        (3, "501", "A2", "1.5"),
    ]
    assert unreadable == []
    assert "taken as the queries' texts" in findings[0]
    rows, *_ = read(tmp_path / "spaces.qrels", "red shoe 0 A1 2\nmug 0 A2 0\n")
    assert values(rows, *JUDGED) == [("red shoe", "A1", "2"), ("mug", "A2", "0")]


def test_no_line_is_lost(tmp_path):
    text = "red shoe\t0\tA1\t2\nred shoe\t0\tA2\n\nred shoe\t0\tA3\tgood\nblue mug\t0\tA4\t0\n"
    rows, unreadable, _ = read(tmp_path / "judged.qrels", text)
    assert values(rows, "row", "item_id") == [(1, "A1"), (5, "A4")]
    reason = "values where qrels have topic, iteration, docid and a number"
    assert unreadable == [
        (2, "red shoe\t0\tA2", f"3 {reason}"),
        (4, "red shoe\t0\tA3\tgood", f"4 {reason}"),
    ]


def test_those_of_beir(tmp_path):
    topics = tmp_path / "queries.jsonl"
    topics.write_text('{"_id": "q1", "text": "red shoe", "metadata": {}}\n', encoding="utf-8")
    text = "query-id\tcorpus-id\tscore\nq1\tA1\t1\nq1\tA2\n"
    rows, unreadable, _ = read(tmp_path / "test.tsv", text, queries=[topics])
    assert values(rows, "row", *JUDGED) == [(2, "red shoe", "A1", "1")]
    assert unreadable == [(3, "q1\tA2", "2 values where the header has 3")]
    with pytest.raises(InputError, match="bind Tables.queries"):
        read(tmp_path / "test.tsv", text)


def test_a_header_is_no_line(tmp_path):
    text = "topic iter docid grade\nmug 0 A1 2\n"
    start = FileStart(file="x", suffix=".qrels", text=text)
    assert Qrels().recognises(start)
    assert not Qrels().recognises(dataclasses.replace(start, suffix=".tsv"))
    rows, unreadable, _ = read(tmp_path / "judged.qrels", text)
    assert values(rows, "row", *JUDGED) == [(2, "mug", "A1", "2")]
    assert unreadable == []


def test_bytes_that_are_no_utf8_stay(tmp_path):
    path = tmp_path / "judged.qrels.gz"
    path.write_bytes(gzip.compress("caf\xe9 noir\t0\tA1\t2\n".encode("latin-1")))
    parts, _ = Qrels().read([str(path)], queries=[])
    (chunk,) = parts[0]()
    assert chunk.table["query"].to_pylist() == [b"caf\xe9 noir"]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("1 0 A 2\n2 0 B 0", True),
        ("red shoe\t0\tA\t2", True),
        ("1 Q0 A 2", True),
        ("query-id\tcorpus-id\tscore\n1\tA\t2", True),
        ("query\titer\tdocid\tgrade\n1\t0\tA\t2", False),
        ("1 Q0 A 1 14.5 bm25", False),
        ("2 qid:1 1:0.5 # A", False),
        ("red shoe\tA\tB\t7", False),
        ("", False),
    ],
    ids=["plain", "tabs", "Q0", "BEIR", "header", "run", "LETOR", "four columns", "nothing"],
)
def test_what_is_recognised(text, known):
    assert Qrels().recognises(FileStart(file="x", suffix=".tsv", text=text)) == known
