from __future__ import annotations

import functools
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion.topics import named_queries, read_topics
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import raw_rows

TEXTS = {"301": "red shoe", "q-2": 'café, 12" wide'}
FILES = {
    "bare.tsv": "".join(f"{name}\t{text}\n" for name, text in TEXTS.items()),
    "bare.txt": "".join(f"{name} {text}\n" for name, text in TEXTS.items()),
    "bare.csv": '301,red shoe\nq-2,"café, 12"" wide"\n',
    "header.tsv": 'query_id\tquery\tclass\n301\tred shoe\tShoes\nq-2\tcafé, 12" wide\t\n',
    "header.csv": 'text,qid\nred shoe,301\n"café, 12"" wide",q-2\n',
    "beir.jsonl": "".join(
        json.dumps({"_id": name, "text": text, "metadata": {}}) + "\n"
        for name, text in TEXTS.items()
    ),
    "ubi.json": json.dumps(
        [
            {"query_id": name, "user_query": text, "query": "{match}", "client_id": "c"}
            for name, text in TEXTS.items()
        ]
    ),
    "dictionary.json": json.dumps(TEXTS),
    "trec.topics": "".join(
        f"<top>\n<num> Number: {name}\n<title> {text}\n\n<desc> Description:\nSuch.\n</top>\n"
        for name, text in TEXTS.items()
    ),
    "web.xml": "<topics>"
    + "".join(
        f'<topic number="{name}" type="faceted">\n<query>{text}</query>\n</topic>'
        for name, text in TEXTS.items()
    )
    + "</topics>",
}


def texts(path):
    table = read_topics([str(path)])
    return {row["query_id"].decode(): row["text"].decode() for row in table.to_pylist()}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", list(FILES))
def test_every_layout_has_the_same_texts(tmp_path, name, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    data = FILES[name].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    assert texts(path) == TEXTS


def test_numbers_of_a_table_are_ids(tmp_path):
    pq.write_table(pa.table({"id": [7, 8], "query": ["a", "b"]}), tmp_path / "topics.parquet")
    topics = read_topics([str(tmp_path / "topics.parquet")])
    chunk = Chunk(table=pa.table({"query": [8, 9, 7], "item_id": ["x", "y", "z"]}), file="judged")
    rows, unreadable = raw_rows(named_queries([functools.partial(iter, [chunk])], topics))
    assert [(row["query"], row["item_id"]) for row in rows] == [("b", "x"), ("a", "z")]
    assert unreadable == [(2, "9", "unknown query_id")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tred\n1\tblue\n", "query '1' has the texts 'red' and 'blue'"),
        ("1\tred\t2\n", "row 1 has 3 values where an id and a text"),
        ("search,no,words\n1,2,3\n", "row 1 has 1 values|row 1 has 3 values"),
        ('[{"search": "red", "no": 1, "more": 2}]', "call them query_id and query"),
        ('{"1": 2}', "call them query_id and query"),
        ("<top>\n<num> 1\n</top>", "a topic has no number, or no title or query"),
        ("query_id,query\n,\n", "no query has an id and a text"),
    ],
    ids=["two texts", "three values", "no names", "other names", "number", "no title", "nothing"],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "topics.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_topics([str(path)])
    assert str(path) in str(caught.value)
