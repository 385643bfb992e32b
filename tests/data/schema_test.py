from __future__ import annotations

import pyarrow as pa
import pytest

from dsirm_jax.data import schema
from dsirm_jax.data.schema import Chunk

TABLES = ("RAW_ITEMS", "RAW_JUDGEMENTS", "ITEMS", "QUERIES", "JUDGEMENTS", "EXAMPLES", "REJECTED")


@pytest.mark.parametrize("name", TABLES)
def test_every_column_is_documented(name):
    fields = list(getattr(schema, name))
    assert all(field.metadata[b"doc"] for field in fields)
    assert len({field.name for field in fields}) == len(fields)


def test_prepared_tables_join_on_the_same_types():
    for column, table in (("item_index", schema.ITEMS), ("query_index", schema.QUERIES)):
        assert schema.JUDGEMENTS.field(column).type == table.field(column).type


def test_row_numbers_follow_the_first_row_unless_given():
    table = pa.table({"item_id": ["a", "b", "c"]})
    assert list(Chunk(table=table, file="f", first_row=5).row_numbers()) == [5, 6, 7]
    assert list(Chunk(table=table, file="f", rows=[1, 4, 9]).row_numbers()) == [1, 4, 9]


def rows_of(chunk):
    """Returns number, id and whether it could be parsed of each row."""
    places = zip(chunk.row_numbers(), chunk.table["item_id"].to_pylist(), strict=True)
    return [(*row, place not in chunk.unreadable) for place, row in enumerate(places)]


@pytest.mark.parametrize("rows", [None, [2, 3, 5, 8]], ids=["in a row", "with gaps"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 9])
def test_the_head_of_a_chunk_is_its_first_rows(rows, number):
    chunk = Chunk(
        table=pa.table({"item_id": ["a", None, "c", None]}),
        file="f",
        first_row=11,
        rows=rows,
        unreadable={1: ("x", "broken"), 3: ("y", "broken")},
        columns={"item_id": "sku"},
    )
    head = chunk.head(number)
    assert rows_of(head) == rows_of(chunk)[:number]
    assert set(head.unreadable) == {place for place in (1, 3) if place < number}
    assert (head.file, head.columns) == ("f", {"item_id": "sku"})
    assert len(rows_of(chunk)) == 4
