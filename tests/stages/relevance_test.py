from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.relevance.calibration import Calibration
from dsirm_jax.relevance.choice import Choice
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.run.record import StageRecord, write_record
from dsirm_jax.stages import relevance
from dsirm_jax.training.settings import Training
from tests.stages.prepared import ITEM, QUERY, SPLITS, prepare, truth

RUNGS = {"no_sid": ("dense",), "full": ("dense", "prefix")}
SPLIT = SPLITS[QUERY]


def run(layout, *, halves=None, rungs=RUNGS, **settings):
    relevance.run(
        layout,
        seed=0,
        rungs=rungs,
        sid_rungs=(),
        head=Linear(l2=1.0),
        training=Training(epochs=1, batch_size=64, learning_rate=0.01),
        calibration=Calibration(),
        halves=halves or (layout,),
        **settings,
    )
    return {rung: heads.load(layout.head(rung)).version for rung in rungs}


def flipped(relevant, *splits):
    return np.where(np.isin(SPLIT, splits), ~relevant, relevant)


def test_heads_learn_from_the_split_head_alone(tmp_path):
    features, relevant = truth()
    versions = run(prepare(tmp_path / "run", relevant=relevant, features=features))
    others = flipped(relevant, "train", "test")
    assert run(prepare(tmp_path / "others", relevant=others, features=features)) == versions
    own = flipped(relevant, "head")
    found = run(prepare(tmp_path / "own", relevant=own, features=features))
    assert all(found[rung] != versions[rung] for rung in RUNGS)


def test_the_leak_is_that_of_the_split_train(tmp_path):
    features, relevant = truth()
    metrics = {}
    for name, labels in (("run", relevant), ("train", flipped(relevant, "train"))):
        layout = prepare(tmp_path / name, relevant=labels, features=features)
        run(layout)
        metrics[name] = json.loads(layout.metrics.read_text())
    aucs = {
        (name, rung): of["leak"]["rungs"][rung]["roc_auc"]["value"]
        for name, of in metrics.items()
        for rung in ("full", "full_on_seen")
    }
    assert aucs["run", "full"] == aucs["train", "full"] > 0.7
    assert aucs["run", "full_on_seen"] > 0.7 > 0.3 > aucs["train", "full_on_seen"]
    assert list(metrics["run"]["leak"]["lifts"]) == ["full_on_seen"]
    del metrics["run"]["leak"], metrics["train"]["leak"]
    assert metrics["run"]["rungs"] == metrics["train"]["rungs"]


def test_metrics_name_the_rungs_without_codes(tmp_path):
    features, relevant = truth()
    layout = prepare(tmp_path / "run", relevant=relevant, features=features)
    run(layout)
    assert json.loads(layout.metrics.read_text())["controls"] == ["no_sid"]


def test_predictions_are_of_pairs_that_no_stage_before_saw_and_metrics_of_tests(tmp_path):
    features, relevant = truth()
    layout = prepare(tmp_path / "run", relevant=relevant, features=features)
    run(layout)
    table = pq.read_table(layout.predictions)
    assert table["query"].to_pylist() == [f"query {n}" for n in QUERY[SPLIT != "train"]]
    tested = table["split"].to_numpy() == "test"
    metrics = json.loads(layout.metrics.read_text())
    for rung in RUNGS:
        scores = table[rung].to_numpy()[tested]
        expected = roc_auc_score(relevant[SPLIT == "test"], scores)
        assert metrics["rungs"][rung]["roc_auc"]["value"] == pytest.approx(expected)
    assert list(metrics["lifts"]) == ["full"]
    assert metrics["hits"]["rungs"]["full"]["level_1"]["hit@1"]["value"] == 1


def test_belief_is_measured_where_hits_have_it_by_the_types_of_the_titles(tmp_path):
    features, relevant = truth()
    layout = prepare(tmp_path / "run", relevant=relevant, features=features)
    run(layout)
    assert json.loads(layout.metrics.read_text())["belief"] == {}  # of ranks alone
    asked = np.unique(QUERY[relevant & (SPLIT == "test")])
    hits = {
        "query_index": asked,
        "ranks": [[1, 2]] * len(asked),
        "branch": [[0.75, 0.5]] * len(asked),
        "first_entropy": pa.array([0.5] * len(asked), pa.float32()),
        "first_probability": [[0.75, 0.25]] * len(asked),
        "prefix_mass": [[[0.5, 0.25], [0.75]]] * len(asked),
        "prefix_right": [[[True, False], [True]]] * len(asked),
    }
    pq.write_table(pa.table(hits), layout.hits)
    titles = ["Acme tea kettle", "Acme red shoe"] * 20
    none = pa.nulls(40, pa.list_(pa.string()))
    columns = {"title": titles, "text": titles, "category": none}
    items = pq.read_table(layout.items).drop_columns(list(columns))
    pq.write_table(
        pa.table(columns | {name: items[name] for name in items.column_names}), layout.items
    )
    record = StageRecord(
        stage="features", stage_version=1, version="0", bindings={"language": "en"}, inputs={}
    )
    write_record(layout.stage("features"), record)
    run(layout)
    found = json.loads(layout.metrics.read_text())["belief"]
    assert (found["types"], found["queries"]) == ("title", len(asked))
    level = found["rungs"]["full"]["level_1"]
    assert level["branch"]["value"] == 0.75 and level["beams"]["value"] == 0.5
    # Even items are kettles, odd ones shoes.
    kinds = [len({*(ITEM[(query == QUERY) & relevant] % 2)}) for query in asked]
    assert {count: of["queries"] for count, of in level["types"].items()} == {
        str(count): kinds.count(count) for count in sorted({*kinds})
    }


def test_each_pair_has_the_features_of_a_half_that_has_not_seen_it(tmp_path):
    """The second half saw the queries that the first gives to the head, with features of noise."""
    features, relevant = truth()
    one = prepare(tmp_path / "one", relevant=relevant, features=features)
    versions = run(one)
    noise = np.where(np.isin(SPLIT, ["head"])[:, None], -features, features)
    two = prepare(tmp_path / "two", relevant=relevant, features=noise)
    table = pq.read_table(two.judgements)
    exchanged = np.where(SPLIT == "head", "train", SPLIT)
    place = table.column_names.index("split")
    pq.write_table(table.set_column(place, "split", [exchanged]), two.judgements)
    assert run(one, halves=(one, two)) == versions


def test_features_of_other_pairs_or_sids_are_refused(tmp_path):
    features, relevant = truth()
    tables = {"relevant": relevant, "features": features}
    other = prepare(tmp_path / "pairs", **tables, item_index=ITEM[::-1])
    with pytest.raises(InputError, match=r"features/features.parquet: its rows .*dsirm features"):
        run(other)
    other = prepare(tmp_path / "sids", **tables, sid_version="w")
    with pytest.raises(InputError, match="sid_version w differs from v"):
        run(other)


def test_a_group_that_no_table_has_is_refused(tmp_path):
    features, relevant = truth()
    layout = prepare(tmp_path / "run", relevant=relevant, features=features)
    with pytest.raises(InputError, match="names the feature group 'lexicl'"):
        run(layout, rungs={"full": ("lexicl",)})


def test_features_in_lists_are_those_of_all_judged_pairs_of_a_query(tmp_path):
    features, relevant = truth()
    layout = prepare(tmp_path / "run", relevant=relevant, features=features)
    before = run(layout)
    after = run(layout, in_lists=("cosine", "t*"))
    assert all(after[rung] != before[rung] for rung in RUNGS)
    head = heads.load(layout.head("full"))
    assert head.in_lists == ("cosine", "two")
    assert heads.load(layout.head("no_sid")).in_lists == ("cosine",)
    tested = SPLIT == "test"
    values = np.stack([features[:, 0], features[:, 1], features[:, 2]], axis=1)[tested]
    table = FeatureTable(names=("cosine", "one", "two"), groups=("",) * 3, values=values)
    expected = score(head, table, lists=QUERY[tested])
    predictions = pq.read_table(layout.predictions, filters=[("split", "=", "test")])
    np.testing.assert_allclose(predictions["full"].to_numpy(), expected, atol=1e-6)
    with pytest.raises(InputError, match="relevance.run.in_lists names 'three'; bind some of cos"):
        run(layout, in_lists=("cosine", "three"))


def test_the_head_of_every_rung_is_chosen_for_itself(tmp_path):
    features, relevant = truth()
    layout = prepare(tmp_path / "run", relevant=relevant, features=features)
    rival = Linear(l2=1.0, rising=("one",), falling=("cosine",))  # against the truth
    run(layout, choice=Choice(rivals=(rival,), folds=2, metric="per_query_auc"))
    assert [heads.load(layout.head(rung)).head for rung in RUNGS] == [Linear(l2=1.0)] * 2
