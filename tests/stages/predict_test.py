"""Queries of a command line; what the stage gives: tests/job/finished_test.py."""

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run.layout import Layout
from dsirm_jax.stages import predict


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "--query is empty"),
        (" <b></b>", "--query is empty"),
        ("x" * 1025, "--query has 1025 characters; give at most 1024"),
    ],
    ids=["empty", "only tags", "long"],
)
def test_a_query_that_nothing_else_would_answer_is_refused(tmp_path, query, message):
    with pytest.raises(InputError, match=message):
        predict.predicted(Layout(model_dir=tmp_path), queries=["shoe", query], beams=2)
