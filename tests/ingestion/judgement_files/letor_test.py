from __future__ import annotations

import pytest

from dsirm_jax.ingestion.formats.file_starts import FileStart
from dsirm_jax.ingestion.judgement_files.letor import Letor
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import raw_rows, values

JUDGED = ("query", "item_id", "label")


def read(path, lines, *, queries=()):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    parts, findings = Letor().read([str(path)], queries=[str(file) for file in queries])
    return *raw_rows(parts), findings


def test_the_query_stands_behind_the_docid(tmp_path):
    lines = [
        "4 qid:1 1:12.318474 2:10.573917 # 7555 rambo first blood",
        "",
        "0 qid:1 1:0.0 2:0.0 # 13969 rambo first blood",
        "3.0 qid:2 # 1366\trocky",
    ]
    rows, unreadable, findings = read(tmp_path / "judged.txt", lines)
    assert values(rows, "row", *JUDGED) == [
        (1, "rambo first blood", "7555", "4"),
        (3, "rambo first blood", "13969", "0"),
        (4, "rocky", "1366", "3.0"),
    ]
    assert unreadable == []
    assert [finding.is_fault for finding in findings] == [False]


def test_a_qid_of_two_queries_is_said(tmp_path):
    lines = [
        *(f"1 qid:0 1:0.5 # A{number} red shoe" for number in range(3)),
        *(f"1 qid:0 1:0.5 # B{number} blue mug" for number in range(3)),
        "1 qid:1 1:0.5 # B9 blue mug",
    ]
    rows, _, (finding,) = read(tmp_path / "judged.txt", lines)
    assert [row["query"] for row in rows] == ["red shoe"] * 3 + ["blue mug"] * 4
    assert finding.is_fault
    assert "1 of 2 qids" in finding.text and "qid:0 'red shoe' and 'blue mug'" in finding.text


@pytest.mark.parametrize(
    "comment",
    [
        "#docid = GX-1 inc = 0.0119881192468859 prob = 0.139842",
        "#docid = GX-1",
        "# docid: GX-1",
        "# GX-1",
        "#GX-1 a title",
    ],
    ids=["LETOR 4", "LETOR 3", "colon", "id", "title"],
)
def test_topics_have_the_queries_of_qids(tmp_path, comment):
    topics = tmp_path / "topics.csv"
    topics.write_text("qid,query\n10002,red shoe\n", encoding="utf-8")
    line = f"2 qid:10002 1:0.007477 46:0.007042 {comment}"
    rows, unreadable, _ = read(tmp_path / "judged.dat", [line], queries=[topics])
    assert values(rows, *JUDGED) == [("red shoe", "GX-1", "2")]
    assert unreadable == []


def test_a_query_may_be_named_in_the_comment(tmp_path):
    line = "2 qid:3 1:0.1 # docid = GX-1 query = red shoe"
    rows, *_ = read(tmp_path / "judged.dat", [line])
    assert values(rows, *JUDGED) == [("red shoe", "GX-1", "2")]


@pytest.mark.parametrize("weight", ["", "*1"], ids=["plain", "weighted"])
def test_queries_at_the_head_of_the_file(tmp_path, weight):
    lines = [
        f"# qid:1: rambo{weight}",
        f"# qid:2: rocky balboa{weight}",
        "#",
        "# grade (0-4)\tqueryid\tdocId\ttitle",
        "4\tqid:1 #\t7555\tRambo",
        "3\tqid:2 #\t1370\tRambo III",
    ]
    rows, unreadable, _ = read(tmp_path / "judged.txt", lines)
    assert values(rows, "row", *JUDGED) == [
        (5, "rambo", "7555", "4"),
        (6, "rocky balboa", "1370", "3"),
    ]
    assert unreadable == []


def test_no_qid_and_no_title_becomes_a_query(tmp_path):
    with pytest.raises(InputError, match=r"numbers \(qid:10\).*bind Tables.queries"):
        read(tmp_path / "judged.dat", ["2 qid:10 1:0.03 #docid = GX-1 inc = 1 prob = 0.1"])
    titles = [f"1 qid:1 # 755{number} Rambo part {number}" for number in range(4)]
    with pytest.raises(InputError, match="titles of items.*bind Tables.queries"):
        read(tmp_path / "judged.txt", titles)


def test_a_file_without_items_is_refused(tmp_path):
    with pytest.raises(InputError, match="no line names its item"):
        read(tmp_path / "train.txt", ["0 qid:1 1:3 2:0 136:0", "2 qid:1 1:3 2:3 136:0"])


def test_no_line_is_lost(tmp_path):
    lines = ["1 qid:1 1:1 # A1 red shoe", "1 1:1 # A2 red shoe", "0 qid:1 1:1", "# a remark"]
    rows, unreadable, _ = read(tmp_path / "judged.txt", lines)
    assert values(rows, "row", "item_id") == [(1, "A1")]
    assert unreadable == [
        (2, "1 1:1 # A2 red shoe", "no line of grade, qid:N and features"),
        (3, "0 qid:1 1:1", "no docid behind a #"),
    ]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("# qid:1: rambo\n4 qid:1 # 7555", True),
        ("0 qid:1 1:3 2:0 136:0", True),
        ("-1 1:0.43 3:0.12", False),
        ("# a\n", False),
    ],
    ids=["Elasticsearch", "MSLR", "SVMlight", "comment"],
)
def test_what_is_recognised(text, known):
    assert Letor().recognises(FileStart(file="x", suffix=".txt", text=text)) == known
