"""Further pairs beside those of a run; what the stage gives: tests/job/finished_test.py."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.vectors import write_vectors
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.nearest.build import made
from dsirm_jax.relevance.nearest.lists import lists_file
from dsirm_jax.relevance.nearest.search import ITEMS
from dsirm_jax.relevance.nearest.settings import ListSettings
from dsirm_jax.run.layout import Layout
from dsirm_jax.stages import further_pairs

KNOWN = ["pot", "mug", "cup"]
VECTORS = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


@pytest.fixture
def layout(tmp_path):
    """A run whose queries `pot` and `mug` vote, and `cup`, a test query, does not."""
    layout = Layout(model_dir=tmp_path)
    for path in (layout.queries, layout.query_vectors):
        path.parent.mkdir()
    pq.write_table(pa.table({"query": KNOWN}), layout.queries)
    pq.write_table(pa.table({"item_id": ["a", "b"]}), layout.items)
    of_queries, of_items = (
        pattern.with_name(pattern.name.replace("*", "00000-of-00001"))
        for pattern in (layout.query_vectors, layout.item_vectors)
    )
    write_vectors(of_queries, KNOWN, VECTORS, id_column="query")
    write_vectors(of_items, ["a", "b"], np.array([[3.0, 0.0], [0.0, 0.5]]), id_column="item_id")
    judgements = {
        "query_index": [0, 0, 1, 2],
        "item_index": [0, 1, 1, 0],
        "relevant": [True, False, True, True],
        "split": ["train", "train", "head", "test"],
    }
    pq.write_table(pa.table(judgements), layout.judgements)
    return layout


def test_queries_are_told_apart_from_those_of_the_run(layout):
    queries = further_pairs._queries(layout, ["cup", "urn", "mug", "cup", "bowl"])
    assert queries.texts == ["mug", "cup", "bowl", "urn"]
    assert queries.numbers.tolist() == [1, 2, 3, 4]
    assert queries.of_pairs.tolist() == [1, 3, 0, 1, 2]
    assert queries.texts[queries.new_rows] == ["bowl", "urn"]
    known = further_pairs._queries(layout, ["cup"])
    assert known.new == 0 and known.texts[known.new_rows] == []


def test_no_query_votes_for_itself_and_all_that_vote_for_a_new_one(layout, tmp_path):
    places = []

    def query_vectors(texts, **paths):
        places.append(paths)
        return np.array([[2.0, 0.0] for _ in texts], np.float32)

    queries = further_pairs._queries(layout, ["kettle", "cup", "pot"])
    evidence = further_pairs._evidence(
        layout, queries, encoder=SimpleNamespace(query_vectors=query_vectors), scratch=tmp_path
    )
    assert queries.texts == ["pot", "cup", "kettle"]
    assert places == [{"directory": tmp_path / "encode", "vocabulary": layout.vocabulary}]
    np.testing.assert_allclose(evidence.query_vectors, [[1, 0], [0.6, 0.8], [2, 0]])
    np.testing.assert_allclose(evidence.item_vectors, np.eye(2))
    near = evidence.surroundings
    # Rows of `judged`: `pot` and `mug`.
    assert near.judged.items.tolist() == [[0, 1], [1, 0]]
    assert near.judged.verdicts.tolist() == [[1, -1], [1, 0]]
    np.testing.assert_allclose(near.queries.cosine, [[0, -np.inf], [0.8, 0.6], [1, 0]], atol=1e-6)
    assert near.queries.row[0, 0] == 1
    assert near.queries.row[1:].tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(near.items.cosine, [[1, 0], [0.8, 0.6], [1, 0]], atol=1e-6)


def test_spellings_of_a_query_that_votes_do_not_vote_for_it(layout, tmp_path):
    queries = further_pairs._queries(layout, ["POT"])
    encoder = SimpleNamespace(query_vectors=lambda texts, **_: np.array([[1.0, 0.0]], np.float32))
    near = further_pairs._evidence(layout, queries, encoder=encoder, scratch=tmp_path).surroundings
    # Rows of `judged`: `pot` and `mug`.
    assert near.queries.row[0, 0] == 1
    assert np.isfinite(near.queries.cosine).tolist() == [[True, False]]


def test_the_lists_of_a_run_are_searched(layout, tmp_path):
    encoder = SimpleNamespace(query_vectors=lambda texts, **_: np.array([[1.0, 0.0]], np.float32))
    queries = further_pairs._queries(layout, ["urn", "cup"])
    layout.stage("features").mkdir()
    items = np.eye(2, dtype=np.float32)
    made(
        ITEMS,
        items,
        folder=layout.stage("features"),
        settings=ListSettings(least=2),
        queries=items,
    )
    near = further_pairs._evidence(layout, queries, encoder=encoder, scratch=tmp_path).surroundings
    np.testing.assert_allclose(near.items.cosine, [[0.8, 0.6], [1, 0]], atol=1e-6)
    lists_file(layout.stage("features"), ITEMS).write_bytes(b"")
    with pytest.raises(InputError, match="near_items.safetensors: run `dsirm features` again"):
        further_pairs._evidence(layout, queries, encoder=encoder, scratch=tmp_path)
