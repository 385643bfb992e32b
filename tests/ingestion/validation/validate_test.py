from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data.schema import RAW_ITEMS, RAW_JUDGEMENTS, Chunk
from dsirm_jax.ingestion.grading.labels import LabelTable
from dsirm_jax.ingestion.validation.row_checks import VALUE_CHARACTERS
from dsirm_jax.ingestion.validation.validate import (
    checked_items,
    checked_judgements,
)
from dsirm_jax.io.errors import InputError

NO_EXTRAS = pa.schema([])


def items(values, extras=NO_EXTRAS, **chunk):
    return checked_items(Chunk(table=pa.table(values), file="f", **chunk), extras=extras)


def judgements(columns):
    chunk = Chunk(table=pa.table(columns), file="f")
    labels = LabelTable(gains={"1": 0.0, "3": 1.0}, relevant=("3",))
    return checked_judgements(chunk, labels=labels, seed=0)


def faults(rejected):
    return [(row["row"], row["column"], row["reason"]) for row in rejected.to_pylist()]


def test_numbers_serve_as_ids_and_text_as_numbers():
    kept, rejected = judgements(
        {
            "query": ["a", "b", "c"],
            "item_id": [12345678901234567, 2, 3],
            "label": [3.0, 1.0, None],
            "clicks": ["7", "8.0", "9"],
            "weight": ["0.5", None, "1e-1"],
        }
    )
    assert kept["item_id"].to_pylist() == ["12345678901234567", "2", "3"]
    assert kept["label"].to_pylist() == ["3", "1", None]
    assert kept["clicks"].to_pylist() == [7, 8, 9]
    assert kept["weight"].to_pylist() == pytest.approx([0.5, None, 0.1])
    assert rejected.num_rows == 0


def test_columns_that_are_missing_become_nulls_of_the_right_type():
    kept, _ = judgements({"query": ["a"], "item_id": ["b"], "label": ["1"]})
    assert [kept.schema.field(f.name).type for f in RAW_JUDGEMENTS] == [
        f.type for f in RAW_JUDGEMENTS
    ]
    kept, _ = items({"item_id": ["a"], "title": ["b"]})
    assert [kept.schema.field(f.name).type for f in RAW_ITEMS] == [f.type for f in RAW_ITEMS]


def test_invalid_utf8_is_rejected_by_row_and_column():
    binary = pa.array([b"good", b"b\xffd", "日本".encode(), b"\xed\xa0\x80"])
    # The type says UTF-8, as Parquet and unchecked CSV do; Arrow takes that on trust.
    text = pa.StringArray.from_buffers(4, *binary.buffers()[1:])
    for column in (binary, text, text.cast(pa.dictionary(pa.int32(), pa.string()))):
        kept, rejected = items({"item_id": ["a", "b", "c", "d"], "title": column})
        assert kept["title"].to_pylist() == ["good", "日本"]
        reason = "invalid UTF-8"
        assert faults(rejected) == [(2, "title", reason), (4, "title", reason)]
        assert rejected["value"].to_pylist()[0] == "b\\xffd"


def test_invalid_utf8_in_a_category():
    path = pa.array([[b"a", b"\xff"], [b"b"], None], pa.list_(pa.binary()))
    kept, rejected = items({"item_id": ["a", "b", "c"], "title": ["t"] * 3, "category": path})
    assert kept["category"].to_pylist() == [["b"], None]
    assert faults(rejected) == [(1, "category", "invalid UTF-8")]


def test_what_is_no_number_is_rejected():
    kept, rejected = judgements(
        {
            "query": ["q"] * 6,
            "item_id": ["i"] * 6,
            "clicks": ["1", "many", "1.5", "99999999999999999999", "", "2"],
        }
    )
    assert kept["clicks"].to_pylist() == [1, 2]
    reason = "not a value of type int64"
    assert faults(rejected) == [(row, "clicks", reason) for row in (2, 3, 4, 5)]


def test_extras_are_cast_to_their_types():
    extras = pa.schema([("price", pa.float64()), ("new", pa.bool_())])
    kept, rejected = items(
        {
            "item_id": ["a", "b"],
            "title": ["t", "t"],
            "price": ["1.5", "cheap"],
            "new": ["true", None],
        },
        extras,
        columns={"price": "preis"},
    )
    assert kept.select(["price", "new"]).to_pylist() == [{"price": 1.5, "new": True}]
    assert faults(rejected) == [(2, "preis", "not a value of type double")]


def test_unreadable_rows_are_rejected_with_their_own_reason():
    kept, rejected = items(
        {"item_id": ["a", None], "title": ["t", None]},
        unreadable={1: ("{half", "not valid JSON")},
        rows=[10, 30],
    )
    assert kept.num_rows == 1
    assert rejected.to_pylist() == [
        {
            "table": "items",
            "file": "f",
            "row": 30,
            "query": None,
            "item_id": None,
            "column": None,
            "value": "{half",
            "reason": "not valid JSON",
        }
    ]


def test_long_values_are_shortened():
    _, rejected = judgements({"query": ["q"], "item_id": ["i"], "label": ["x" * 1_000_000]})
    assert len(rejected["value"][0].as_py()) == VALUE_CHARACTERS


def test_a_column_of_another_kind_is_the_users_mistake():
    with pytest.raises(InputError, match=r"column name has type struct.* no title \(string\)"):
        items(
            {"item_id": ["a"], "title": [{"en": "t"}]},
            columns={"title": "name"},
        )


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(*[st.none() | st.binary(max_size=5) | st.sampled_from([b"a", b"1", b"1.0"])] * 4),
        min_size=1,
    )
)
def test_kept_and_rejected_are_what_was_read(rows):
    ids, titles, labels, clicks = (pa.array(column, pa.binary()) for column in zip(*rows))
    kept, rejected = items({"item_id": ids, "title": titles, "brand": labels})
    assert sorted(kept["_row"].to_pylist() + rejected["row"].to_pylist()) == list(
        range(1, len(rows) + 1)
    )
    kept, rejected = judgements(
        {"query": titles, "item_id": ids, "label": labels, "clicks": clicks, "weight": clicks}
    )
    assert sorted(kept["_row"].to_pylist() + rejected["row"].to_pylist()) == list(
        range(1, len(rows) + 1)
    )


def test_a_query_or_id_is_as_long_as_anything_that_serves_it_takes():
    kept, rejected = judgements(
        {
            "query": ["椅" * 1024, "椅" * 1025, f" <b>{'x' * 1024}</b> ", "a"],
            "item_id": ["x" * 512, "1", "2", "x" * 513],
            "label": ["1"] * 4,
        }
    )
    assert kept["query"].to_pylist() == ["椅" * 1024, "x" * 1024]
    assert faults(rejected) == [
        (2, "query", "longer than 1,024 characters"),
        (4, "item_id", "longer than 512 characters"),
    ]
    _, rejected = items({"item_id": ["x" * 513, "y" * 512], "title": ["a", "b"]})
    assert faults(rejected) == [(1, "item_id", "longer than 512 characters")]


def test_spellings_of_a_query_are_drawn_together():
    kept, _ = judgements(
        {"query": ["red shoe", "RED Shoe", "blue shoe"], "item_id": ["1"] * 3, "label": ["1"] * 3}
    )
    assert kept["_identity"].to_pylist() == ["red shoe", "red shoe", "blue shoe"]
    for name in ("_test_draw", "_head_draw"):
        one, twin, other = kept[name].to_pylist()
        assert one == twin != other
