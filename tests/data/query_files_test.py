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
