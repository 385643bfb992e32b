from __future__ import annotations

import pyarrow as pa
import pytest

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion.columns.mapping import (
    filter_rows,
    judgement_mapping,
    present_columns,
    split_category,
)
from dsirm_jax.io.errors import InputError


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(pa.array(["a/b", None, "", "c"]), id="string"),
        pytest.param(pa.array(["a/b", None, "", "c"], pa.large_string()), id="large_string"),
        pytest.param(pa.array(["a/b", None, "", "c"], pa.string_view()), id="string_view"),
        pytest.param(pa.array([b"a/b", None, b"", b"c"], pa.binary()), id="binary"),
        pytest.param(pa.array(["a/b", None, "", "c"]).dictionary_encode(), id="dictionary"),
    ],
)
def test_paths_of_any_text_type_are_split(paths):
    chunk = Chunk(table=pa.table({"category": paths, "title": paths}), file="f")
    table = split_category(chunk, separator="/").table
    assert table["category"].to_pylist() == [[b"a", b"b"], None, [b""], [b"c"]]
    assert table["title"] == chunk.table["title"]


def test_other_types_of_category_stay():
    for values in ([["a/b"], None], [1, 2]):
        chunk = Chunk(table=pa.table({"category": values}), file="f")
        assert split_category(chunk, separator="/") is chunk


def test_filtered_rows_keep_their_numbers():
    chunk = Chunk(table=pa.table({"title": list("abcde")}), file="f", first_row=11)
    chunk = filter_rows(chunk, pa.array([True, None, False, True, True]))
    assert (chunk.table["title"].to_pylist(), chunk.rows) == (["a", "d", "e"], [11, 14, 15])
    chunk = filter_rows(chunk, pa.chunked_array([[False], [True, True]]))
    assert (chunk.table["title"].to_pylist(), chunk.rows) == (["d", "e"], [14, 15])


def test_judgements_need_labels_or_counts():
    mapping = judgement_mapping({"query": "q", "clicks": "n"}, binding="b")
    assert present_columns("t", ["q", "item_id", "n", "other"], mapping) == {
        "query": "q",
        "item_id": "item_id",
        "clicks": "n",
    }
    mapping = judgement_mapping({"query": "q"}, binding="b")
    with pytest.raises(InputError, match="t: no column for label, clicks or purchases"):
        present_columns("t", ["q", "item_id", "n"], mapping)
