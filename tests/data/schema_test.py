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
