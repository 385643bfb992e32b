from __future__ import annotations

import pytest

from dsirm_jax.data.query_files import read_query_file
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


def test_a_query_that_nothing_would_answer_is_named(tmp_path):
    file = tmp_path / "queries.csv"
    file.write_text(f"query\n{'x' * 1024}\n")
    assert list(read_query_file(str(file))) == [["x" * 1024]]
    file.write_text(f"query\nkettle\n{'x' * 1025}\n")
    with pytest.raises(InputError, match="row 2: column query has 1025 characters; give at most"):
        list(read_query_file(str(file)))
