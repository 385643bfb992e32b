from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.io import arrays
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import tables
from dsirm_jax.relevance.evaluate import evaluate
from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.relevance.neighbours import Judged, Surroundings
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.run.layout import Layout


def test_queries_with_fewer_beams_are_filled_up_and_not_valid(tmp_path):
    path = tmp_path / "query_sids.parquet"
    rows = {
        "query": ["a", "b", "c"],
        "sids": [[[1, 2]], [[3, 4], [5, 6]], []],
        "log_probs": [[-1.0], [-0.5, -2.0], []],
    }
    types = {"sids": pa.list_(pa.list_(pa.int32())), "log_probs": pa.list_(pa.float32())}
    columns = {name: pa.array(values, types.get(name)) for name, values in rows.items()}
    pq.write_table(pa.table(columns), path)
    beams = tables.read_beams(path, levels=2)
    assert beams.valid.tolist() == [[True, False], [True, True], [False, False]]
    for query, (sids, log_probs) in enumerate(zip(rows["sids"], rows["log_probs"], strict=True)):
        assert beams.sids[query][beams.valid[query]].tolist() == sids
        assert beams.log_probs[query][beams.valid[query]].tolist() == log_probs
    assert np.isneginf(beams.log_probs[~beams.valid]).all()


def test_controls_are_rungs_of_groups_that_need_no_sids(tmp_path):
    features_file(tmp_path / "features.parquet", np.zeros((2, 3)), groups=("dense", "prf", "mine"))
    rungs = {
        "no_sid": ("dense", "prf", "numeric"),  # the user may have no numbers
        "own": ("mine",),
        "paper": ("dense", "paper_match"),
        "full": ("dense", "prf", "mine", "prefix"),
    }
    found = tables.controls(rungs, features=tmp_path / "features.parquet")
    assert found == ["no_sid", "own"]


def features_file(path, values, *, groups=("dense", "prf")):
    table = FeatureTable(
        names=tuple(f"{group}_1" for group in groups),
        groups=tuple(groups),
        values=np.asarray(values, np.float32),
    )
    rows = {name: np.arange(len(values)) for name in ("query_index", "item_index")}
    tables.write_features(path, table, pairs=rows, sid_version="v")
    return table


def test_features_are_read_by_group_as_they_were_written(tmp_path):
    path = tmp_path / "features.parquet"
    table = features_file(path, [[1, 2], [3, 4], [5, 6]])
    found = tables.read_features(path, groups=("prf", "lexical"))
    assert (found.names, found.groups) == (("prf_1",), ("prf",))
    assert found.values.tolist() == table.values[:, 1:].tolist()
    rows = np.array([True, False, True])
    assert tables.read_features(path, groups=("dense",), rows=rows).values.tolist() == [[1], [5]]
    with pytest.raises(InputError, match=r"rungs\['paper'\] names the feature group 'prefx'"):
        tables.check_groups(("dense", "prefx"), path, rung="paper")
    # A group of the package that this table lacks; the user may have no numbers.
    with pytest.raises(InputError, match=r"rungs\['paper'\] names the feature group 'votes'"):
        tables.check_groups(("dense", "votes"), path, rung="paper")
    tables.check_groups(("dense", "numeric"), path, rung="paper")


def test_a_pair_has_the_features_of_the_half_that_has_not_seen_it(tmp_path):
    sources = []
    for half, factor in enumerate((1, 10)):
        dense, sids = tmp_path / f"{half}-dense.parquet", tmp_path / f"{half}-sids.parquet"
        features_file(dense, [[factor, 0], [2 * factor, 0], [3 * factor, 0]])
        features_file(sids, [[7 * factor]] * 3, groups=("prefix",))
        sources.append((dense, sids))
    where = np.array([[True, False, True], [False, True, True]])
    halves = tables.read_halves(sources, groups=("dense", "prefix"), rung="full")
    found = tables.first_of(halves, where=where)
    assert found.names == ("dense_1", "prefix_1")
    # The first half's, the second half's, and for a test query the first of both.
    assert found.values.tolist() == [[1, 7], [20, 70], [3, 7]]
    rows = np.array([False, True, True])
    some = tables.read_halves(sources, groups=("dense", "prefix"), rung="full", rows=rows)
    assert tables.first_of(some, where=where[:, rows]).values.tolist() == [[20, 70], [3, 7]]
    alone = tables.first_of(some[:1], where=where[:1, rows])
    assert alone.values.tolist() == [[2, 7], [3, 7]]


def test_rows_beyond_a_batch_of_a_file_are_read(tmp_path):
    path = tmp_path / "features.parquet"
    numbers = np.arange(200_000)
    features_file(path, np.stack([numbers, -numbers], axis=1))
    rows = numbers % 50_001 == 0
    found = tables.read_features(path, groups=("dense", "prf"), rows=rows)
    assert found.values.tolist() == [[n, -n] for n in (0, 50_001, 100_002, 150_003)]


def test_surroundings_are_read_as_they_were_written(tmp_path):
    near = Surroundings(
        items=Neighbours(np.array([[1, 2]], np.int32), np.array([[0.5, -np.inf]], np.float32)),
        queries=Neighbours(np.array([[0]], np.int32), np.array([[0.25]], np.float32)),
        judged=Judged(np.array([[3, 4]], np.int32), np.array([[1.0, -1.0]], np.float32)),
    )
    tables.write_surroundings(tmp_path / "near.safetensors", near)
    found = tables.read_surroundings(tmp_path / "near.safetensors")
    for part, other in zip(near, found, strict=True):
        assert type(part) is type(other)
        for array, read in zip(part, other, strict=True):
            np.testing.assert_array_equal(array, read)
    named, _ = arrays.load(
        tmp_path / "near.safetensors", kind=tables.SURROUNDINGS, otherwise="not written"
    )
    assert sorted(named) == [
        *("items/cosine", "items/index", "judged/items", "judged/verdicts"),
        *("queries/cosine", "queries/index"),
    ]


# (query, item, relevant), and which fold of two tests the query.
POOLED = [("ax", 0, True), ("ax", 1, False), ("not b", 0, False), ("not b", 2, True)]


def fold(folder, *, tested, scores):
    layout = Layout(model_dir=folder)
    names = sorted({query for query, *_ in POOLED})
    columns = {
        "query": [query for query, *_ in POOLED],
        "item_id": ["abc"[item] for _, item, _ in POOLED],
        "label": ["E" if good else "I" for *_, good in POOLED],
        "gain": [float(good) for *_, good in POOLED],
        "relevant": [good for *_, good in POOLED],
        "split": ["test" if query == tested else "train" for query, *_ in POOLED],
    }
    index = {
        "query_index": [names.index(query) for query, *_ in POOLED],
        "item_index": [item for _, item, _ in POOLED],
    }
    layout.judgements.parent.mkdir(parents=True)
    layout.predictions.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns | index), layout.judgements)
    pq.write_table(pa.table({"query": names, "segment": ["head", "tail"]}), layout.queries)
    paths = pa.array([["Toys", "x"], ["Toys"], None], pa.list_(pa.string()))
    pq.write_table(pa.table({"category": paths}), layout.items)
    kept = [row for row, split in enumerate(columns["split"]) if split == "test"]
    predictions = {name: [of[row] for row in kept] for name, of in columns.items()}
    pq.write_table(pa.table(predictions | {"full": scores}), layout.predictions)
    return layout


def test_every_pair_has_the_score_of_the_fold_that_tests_its_query(tmp_path):
    folds = [
        [
            fold(tmp_path / f"{seed}-{query}", tested=query, scores=scores)
            for query, scores in (("not b", [0.2 + seed, 0.4]), ("ax", [0.3, 0.1]))
        ]
        for seed in (0, 1)
    ]
    pairs, scores = tables.pooled(folds)
    np.testing.assert_allclose(scores["full"], [[0.3, 0.1, 0.2, 0.4], [0.3, 0.1, 1.2, 0.4]])
    segments = {name: mask.tolist() for name, mask in pairs.segments.items()}
    assert segments["head"] == [True, True, False, False]
    assert segments["negation"] == [False, False, True, True]
    # Item 0 is judged for either query: each fold has seen it. Items 1 and 2 are not.
    assert segments["seen items"] == [True, False, True, False]
    assert segments["unseen items"] == [False, True, False, True]
    assert segments["category Toys"] == [True, True, True, False]
    # By hand: of the four (relevant, irrelevant) pairs .3 and .4 beat .1 and .2 always.
    first = {"full": scores["full"][:1]}
    found = evaluate(pairs=pairs, scores=first, lifts=(), resamples=5)
    assert found["rungs"]["full"]["roc_auc"]["value"] == 1.0
    assert found["queries"] == 2 and found["pairs"] == 4


def test_what_was_seen_is_told_by_judgements_that_are_not_wanted_too(tmp_path):
    at = fold(tmp_path, tested="ax", scores=[0.3, 0.1])
    rows = np.array([True, True, False, False])
    paths = {"queries": at.queries, "items": at.items, "judgements": at.judgements}
    pairs = tables.read_judged_pairs(**paths, rows=rows)
    assert pairs.relevant.tolist() == [True, False] and pairs.label.tolist() == ["E", "I"]
    # Item 0 is judged for "not b" as well, which is of the split train.
    assert pairs.segments["seen items"].tolist() == [True, False]
    assert pairs.segments["category Toys"].tolist() == [True, True]


def test_spellings_of_a_query_are_known_by_the_first_and_the_commonest(tmp_path):
    path = tmp_path / "queries.parquet"
    names = ["Mug", "Red Shoe", "mug", "red shoe", "urn"]
    pq.write_table(pa.table({"query": names, "frequency": [1.0, 2.0, 3.0, 2.0, 0.0]}), path)
    assert tables.first_spellings(path).tolist() == ["Mug", "Red Shoe", "Mug", "Red Shoe", "urn"]
    identity = np.array([4, 9, 4, 9, 1])
    assert tables.commonest_spellings(path, identity=identity).tolist() == [1, 2, 4]
