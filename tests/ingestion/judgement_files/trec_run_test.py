from __future__ import annotations

import pyarrow as pa
import pytest

from dsirm_jax.ingestion.formats.file_starts import FileStart
from dsirm_jax.ingestion.judgement_files.trec_run import TrecRun
from dsirm_jax.ingestion.query_files import read_pair_file
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


def test_the_pairs_of_a_run_are_read_for_scoring(tmp_path):
    file, topics = tmp_path / "bm25.run", tmp_path / "topics.tsv"
    file.write_text("301 Q0 a 1 12.5 bm25\n301 Q0 b 2 1e1 bm25\n302 Q0 a 1 9 bm25\n" * 5)
    topics.write_text("301\tred kettle\n302\tblue kettle\n")
    ids = pa.chunked_array([["a", "b"]])
    with pytest.raises(InputError, match="such as '301', .* --queries=FILE"):
        read_pair_file(str(file), item_ids=ids)
    file.write_text("301 Q0 a 1 12.5 bm25\n301 Q0 b 2 1e1 bm25\n302 Q0 z 1 9 bm25\n" * 5 + "end\n")
    read = read_pair_file(str(file), item_ids=ids, queries=str(topics))
    assert read.kept["query"].to_pylist() == ["red kettle"] * 10
    assert read.items.tolist() == [0, 1] * 5
    assert [row["row"] for row in read.rejected.to_pylist()] == [3, 6, 9, 12, 15, 16]
    table = tmp_path / "pairs.csv"
    table.write_text("query,item_id\n302,b\n")
    read = read_pair_file(str(table), item_ids=ids, queries=str(topics))
    assert read.kept["query"].to_pylist() == ["blue kettle"]
