from __future__ import annotations

import pyarrow as pa
import pytest

from dsirm_jax.ingestion.query_files import (
    check_given,
    given_columns,
    read_pair_file,
    read_query_file,
)
from dsirm_jax.io.errors import InputError


def test_queries_are_cleaned_and_a_row_without_text_is_named(tmp_path):
    file = tmp_path / "queries.tsv"
    file.write_text("id\tquery\n1\t red&nbsp; <b>shoe</b>\n2\tkettle\n")
    assert list(read_query_file(str(file))) == [["red shoe", "kettle"]]
    file.write_text("query\nkettle\n<b></b>\n")
    with pytest.raises(InputError, match=r"queries.tsv row 2: column query has no text"):
        list(read_query_file(str(file)))
    file.write_bytes(b"query\nkettle\nth\xe9\n")
    with pytest.raises(InputError, match=r"queries.tsv row 2: .* UTF-8"):
        list(read_query_file(str(file)))
    file.write_text("text\nkettle\n")
    with pytest.raises(InputError, match=r"column 'query' \(our 'query'\) is missing"):
        list(read_query_file(str(file)))


def test_how_a_file_is_read_is_said_where_that_is_not_the_plain_way(tmp_path, caplog):
    plain, other = tmp_path / "plain.csv", tmp_path / "other.csv"
    plain.write_text("id,query\n1,mug\n")
    other.write_text("id;query\n1;mug\n")
    with caplog.at_level("INFO"):
        assert list(read_query_file(str(plain))) == list(read_query_file(str(other))) == [["mug"]]
    (record,) = caplog.records
    assert record.getMessage() == f"{other}: values are separated by ';'"


def pairs(file, **mapped):
    known = pa.chunked_array([["00001", "17", "b"]])
    read = read_pair_file(str(file), item_ids=known, **mapped)
    kept = read.kept.select(["query", "item_id"]).to_pylist()
    return kept, read.items.tolist(), read.rejected.to_pylist(), read.hint


def test_columns_of_a_file_are_mapped_by_flag_by_the_run_or_are_ours(tmp_path):
    file = tmp_path / "pairs.csv"
    expected = [{"query": "red shoe", "item_id": "b"}]
    for header, mapped in [
        ("query,item_id", {}),
        ("query,item_id", {"of_run": {"query": "search", "item_id": "sku"}}),
        ("search,sku", {"of_run": {"query": "search", "item_id": "sku"}}),
        ("search,sku", {"columns": {"query": "search", "item_id": "sku"}}),
        ("search,item_id", {"columns": {"query": "search"}, "of_run": {"query": "term"}}),
    ]:
        file.write_text(f"{header}\nred shoe,b\n")
        assert pairs(file, **mapped) == (expected, [2], [], "")
    file.write_text("search,query\nmug,9\n")
    assert list(read_query_file(str(file), of_run={"query": "search"})) == [["mug"]]
    assert list(read_query_file(str(file), columns={"query": "query"})) == [["9"]]
    file.write_text("search,sku\nmug,b\n")
    with pytest.raises(InputError, match='name yours: --columns="query=search,item_id=sku"$'):
        pairs(file)


def test_ids_are_read_as_in_prepare(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text('query,item_id\nq,\u00a000001\nq,17.0\nq,"=""b"""\nq,1\nq,1\n', "utf-8")
    kept, items, rejected, hint = pairs(file)
    assert [row["item_id"] for row in kept] == ["00001", "17", "b"]
    assert items == [0, 1, 2]
    assert [row["row"] for row in rejected] == [4, 5]
    assert rejected[0]["reason"] == "unknown item_id"
    assert hint.startswith("'1': the catalogue has '00001'; 1 of 1 unknown ids")


@pytest.mark.parametrize(
    "flags",
    [["query"], ["=x"], ["query="], ["query=a", "query=b"]],
    ids=["no", "theirs", "ours", "twice"],
)
def test_flags_that_map_nothing(flags):
    with pytest.raises(InputError, match="--columns has .*such as --columns=query=search"):
        given_columns(flags)


def test_flags_are_read():
    assert given_columns([" query = my search ", "item_id=a=b"]) == {
        "query": "my search",
        "item_id": "a=b",
    }
    with pytest.raises(InputError, match="--columns names 'sku', .*name some of query, item_id"):
        check_given({"sku": "item_id"}, wanted=("query", "item_id"))


def test_a_query_that_nothing_would_answer_is_named(tmp_path):
    file = tmp_path / "queries.csv"
    file.write_text(f"query\n{'x' * 1024}\n")
    assert list(read_query_file(str(file))) == [["x" * 1024]]
    file.write_text(f"query\nkettle\n{'x' * 1025}\n")
    with pytest.raises(InputError, match="row 2: column query has 1025 characters; give at most"):
        list(read_query_file(str(file)))
