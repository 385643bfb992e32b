from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data.schema import Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import ColumnMap, item_mapping, split_categories
from dsirm_jax.ingestion.formats import Limits
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import chunks, items_of, write

ITEMS = item_mapping({}, [], binding="Tables.item_columns")


def read(*files, **limits):
    parts = formats.parts(list(map(str, files)), mapping=ITEMS, limits=Limits(**limits))
    return items_of(Source(items=split_categories(parts, separator="/"), judgements=[]))


def test_runs_of_row_groups_are_parts_that_know_their_first_row(tmp_path):
    path = tmp_path / "items.parquet"
    table = pa.table({"item_id": [str(row) for row in range(1, 18)], "title": ["t"] * 17})
    pq.write_table(table, path, row_group_size=3)
    parts = formats.parts([str(path)], mapping=ITEMS, limits=Limits(rows=2, part_rows=5))
    # Groups of 3, 3, 3, 3, 3 and 2 rows.
    assert [[chunk.first_row for chunk in chunks([part])] for part in parts] == [
        [1, 3, 4, 6],
        [7, 9, 10, 12],
        [13, 15, 16],
    ]
    for order in (parts, parts[::-1]):
        rows, _ = items_of(Source(items=order, judgements=[]))
        assert all(int(row["item_id"]) == row["_row"] for row in rows)
        assert len(rows) == 17


def test_chunks_of_long_rows_are_small(tmp_path):
    rows = [{"item_id": str(row), "title": f"{row} " + 999 * chr(65 + row)} for row in range(20)]
    for suffix in (".parquet", ".csv", ".jsonl"):
        file = write(rows, tmp_path / f"items{suffix}")
        parts = formats.parts([file], mapping=ITEMS, limits=Limits(bytes=10_000))
        sizes = [chunk.table.num_rows for chunk in chunks(parts)]
        assert sum(sizes) == 20
        assert max(sizes) <= 11


def test_files_may_have_no_rows(tmp_path):
    table = pa.table({"item_id": [], "title": []})
    pq.write_table(table, tmp_path / "one_group.parquet")
    pq.ParquetWriter(tmp_path / "no_group.parquet", table.schema).close()
    (tmp_path / "header.csv").write_text("item_id,title\n")
    (tmp_path / "blank.jsonl").write_text("\n \n")
    assert read(*tmp_path.iterdir()) == ([], [])


def test_files_are_read_in_order_and_rows_counted_by_file(tmp_path):
    for number, suffix in enumerate((".csv", ".parquet", ".jsonl", ".csv.gz")):
        rows = [{"item_id": f"{number}{row}", "title": "t"} for row in range(5)]
        write(rows, tmp_path / f"items-{number}{suffix}")
    files = sorted(tmp_path.iterdir())
    items, _ = read(*files, rows=2)
    assert [(row["item_id"], row["_row"], row["_file"]) for row in items] == [
        (f"{number}{row}", row + 1, str(files[number])) for number in range(4) for row in range(5)
    ]


def test_csv_rows_of_a_wrong_width_or_encoding_are_rejected_with_their_number(tmp_path):
    (tmp_path / "items.csv").write_bytes(
        b"\xef\xbb\xbfitem_id,title,brand\n"
        b"1,one,x\n2,two,x,y\n3\n4,four,x\n5,f\xffve,x\n"
        b"6,six,\xff\n7,NULL,\n8,eight,x\n9\n"
    )
    items, rejected = read(tmp_path / "items.csv", rows=2)
    assert [(row["item_id"], row["title"], row["_row"]) for row in items] == [
        ("1", "one", 1),
        ("4", "four", 4),
        ("7", "NULL", 7),
        ("8", "eight", 8),
    ]
    assert [(row["row"], row["column"], row["reason"]) for row in rejected] == [
        (2, None, "4 values where the header has 3"),
        (3, None, "1 values where the header has 3"),
        (5, "title", "invalid UTF-8"),
        (6, "brand", "invalid UTF-8"),
        (9, None, "1 values where the header has 3"),
    ]
    assert rejected[0]["value"] == "2,two,x,y"


def test_csv_blocks(tmp_path):
    lines = [f"{row},title {row}" if row % 3 else f"{row}" for row in range(1, 40)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *lines]))
    items, rejected = read(tmp_path / "items.csv", bytes=64)
    assert all(int(row["item_id"]) == row["_row"] for row in items)
    assert [row["row"] for row in rejected] == list(range(3, 40, 3))
    assert len(items) + len(rejected) == 39


def test_jsonl_with_mixed_types_missing_keys_and_broken_lines(tmp_path):
    (tmp_path / "items.jsonl").write_bytes(
        b'{"item_id": 1, "title": "one", "category": ["a", 2]}\n'
        b"\n"
        b'{"item_id": "2", "title": 2.50, "category": "a > b"}\n'
        b'{"item_id": 3.0, "title": "three", "brand": null}\n'
        b"{half\n"
        b"[1]\n"
        b'{"item_id": "7", "title": "s\xffven"}\n'
        b'{"item_id": "8", "title": "\\ud800"}\n'
        b'{"title": "nine"}\n'
        b'{"item_id": "10", "title": true}\n'
    )
    items, rejected = read(tmp_path / "items.jsonl")
    assert [(row["item_id"], row["title"], row["category"], row["_row"]) for row in items] == [
        ("1", "one", ["a", "2"], 1),
        ("2", "2.5", ["a > b"], 3),
        ("3", "three", None, 4),
        ("10", "true", None, 10),
    ]
    assert [(row["row"], row["column"], row["reason"]) for row in rejected] == [
        (5, None, "not valid JSON"),
        (6, None, "not a JSON object"),
        (7, "title", "invalid UTF-8"),
        (8, "title", "invalid UTF-8"),
        (9, "item_id", "empty item_id"),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {}, optional={name: JSON for name in ("title", "brand", "category", "colour")}
        )
        | JSON,
        max_size=8,
    )
)
def test_no_line_of_json_is_lost(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "items.jsonl"
    rows.append({"item_id": "x", "title": "t"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items, rejected = read(path)
    assert sorted([row["_row"] for row in items] + [row["row"] for row in rejected]) == list(
        range(1, len(rows) + 1)
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("items.csv", b"", "the file is empty", id="empty csv"),
        pytest.param("items.jsonl", b"", "the file is empty", id="empty jsonl"),
        pytest.param("items.parquet", b"", "the file is empty", id="empty parquet"),
        pytest.param(
            "items.parquet",
            b"item_id,title\n1,one\n",
            "not a readable Parquet file",
            id="csv named parquet",
        ),
        pytest.param(
            "items.parquet.gz",
            gzip.compress(b"item_id,title\n", mtime=0),
            "not a readable Parquet file",
            id="csv named parquet.gz",
        ),
        pytest.param(
            "items.csv",
            b"item_id,name\n1,one\n",
            "column 'title' .* it has: item_id, name",
            id="csv without title",
        ),
        pytest.param(
            "items.tsv",
            b"item_id,name\n1,one\n",
            "column 'title' .* missing.* it has: item_id, name",
            id="csv without title named tsv",
        ),
        pytest.param(
            "items.jsonl",
            b'{"item_id": 1, "name": "one"}\n',
            "column 'title' .* missing",
            id="jsonl without title",
        ),
        pytest.param(
            "items.csv",
            b"item_id,title,title\n1,one,two\n",
            "'title' .* in it more than once",
            id="two title columns",
        ),
        pytest.param(
            "items.csv",
            b"item_id,title,brand,brand\n1,a,b,c\n",
            "'brand' .* more than once",
            id="two brand columns",
        ),
        pytest.param(
            "items.csv.gz",
            b"item_id,title\n1,one\n",
            "not a readable CSV file",
            id="csv named csv.gz",
        ),
        pytest.param(
            "items.csv",
            "item_id,title\n1,a\n".encode("utf-16")[:-1],
            "not a readable CSV file",
            id="cut utf-16",
        ),
        pytest.param(
            "items.jsonl.gz",
            gzip.compress(b'{"item_id": 1}\n' * 99, mtime=0)[:-9],
            "not a readable JSONL",
            id="truncated gzip",
        ),
        pytest.param("items.xml", b"PK", "unknown suffix '.xml'", id="unknown suffix"),
        pytest.param(
            "items.csv",
            b"item_id,title\n" + 30 * b"1,a\n" + b'1,"' + b"x\n" * 60,
            "after row 30: field larger than .* is a quote left open",
            id="quote left open",
        ),
        pytest.param(
            "items.csv",
            b'item_id,title\n1,a\n2,"b\n3,c\n',
            "after row 1: the file ends within quotes",
            id="end within quotes",
        ),
        pytest.param(
            "items.csv",
            b"item_id,title\n1,a\n2," + 99 * b"b",
            "after row 1: a line is longer",
            id="long csv line",
        ),
        pytest.param(
            "items.csv",
            b"item_id,title\n1,a\n2,b\n" + b"" + b'3,"' + 40 * b"x\n" + b'"\n',
            "after row 2: field larger",
            id="long quoted field",
        ),
        pytest.param(
            "items.jsonl",
            b'{"item_id": 1}\n{"title": "%s"}' % (b"x" * 60),
            "row 2 is longer than",
            id="long jsonl row",
        ),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read(path, bytes=64)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_the_head_of_a_file_tells_is_said_before_it_is_read(tmp_path):
    mapping = ColumnMap(columns={"item_id": "sku"}, required=frozenset({"item_id"}))
    for suffix in (".parquet", ".csv", ".tsv.gz"):
        path = write([{"item_id": "1", "title": "t"}], tmp_path / f"items{suffix}")
        with pytest.raises(InputError, match="'sku' .* missing"):
            formats.parts([path], mapping=mapping)
