from __future__ import annotations

import pytest

from dsirm_jax.data.file_starts import FileStart
from dsirm_jax.data.judgement_files.trec_run import TrecRun
from dsirm_jax.io.errors import InputError


@pytest.mark.parametrize(
    ("text", "known"),
    [("301 Q0 A-1 1 14.5 bm25\n301 Q0 A-2 2 -3e-2 bm25", True), ("301 0 A-1 2", False)],
    ids=["run", "qrels"],
)
def test_what_is_recognised(text, known):
    assert TrecRun().recognises(FileStart(file="x", suffix=".run", text=text)) == known


def test_a_run_is_no_judgement():
    with pytest.raises(InputError, match="bm25.run: is a TREC run .* bind Tables.judgements"):
        TrecRun().read(["bm25.run"], queries=[])
