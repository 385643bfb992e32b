import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.generator.importing.texts import prompted, read_texts
from dsirm_jax.io.errors import InputError


def test_of_prepared_tables_the_columns_that_a_generator_reads_are_read(tmp_path):
    items = {"item_id": ["a", "b"], "title": ["Mug", "Cup"], "text": ["Mug red", "Cup"]}
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    assert [*read_texts(str(tmp_path / "items.parquet"))] == ["Mug red", "Cup"]


def test_of_other_tables_all_texts_are_read_and_cleaned(tmp_path):
    (tmp_path / "items.csv").write_text("sku,name,price\n7,Tom&amp;Jerry <b>Mug</b>,2.5\n8,,3\n")
    found = [*read_texts(str(tmp_path / "items.csv"))]
    assert sorted(found) == ["2.5", "3", "7", "8", "Tom&Jerry Mug"]
    rows = [{"name": "Cup", "path": ["Home", "Cups"], "stock": 4}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert {"Cup"} <= {*read_texts(str(tmp_path / "items.jsonl"))}


def test_of_a_text_each_line_is_one(tmp_path):
    (tmp_path / "queries.txt").write_text("red  shoe\n\n  äpfel\n")
    assert [*read_texts(str(tmp_path / "queries.txt"))] == ["red shoe", "äpfel"]
    (tmp_path / "latin.txt").write_bytes("shoe\näpfel\n".encode("latin-1"))
    with pytest.raises(InputError, match="latin.txt line 2: no UTF-8"):
        [*read_texts(str(tmp_path / "latin.txt"))]
    with pytest.raises(InputError, match="nowhere.txt"):
        [*read_texts(str(tmp_path / "nowhere.txt"))]


def test_what_is_read_of_a_cut_text_is_read_too():
    found = [*prompted(iter(["shoe"]), prompt="find {query}: code")]
    assert found == ["find : code", ": code", "find shoe: code"]
