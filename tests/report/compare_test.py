from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from dsirm_jax.data.identity import QueryIdentity
from dsirm_jax.io.errors import InputError
from dsirm_jax.report.compare import compare_runs
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.record import StageRecord, complete, read_record, write_record


def finished(
    folder, *, queries, seed, rungs=("no_sid", "full"), config="SEED = 0\n", flip=False, worth=1.0
):
    """Writes the predictions of a run: of each query five items, of which the even are relevant."""
    layout = Layout(model_dir=folder)
    layout.predictions.parent.mkdir(parents=True)
    names = np.repeat([f"query {number}" for number in queries], 5)
    relevant = np.resize([True, False], len(names)) ^ flip
    random = np.random.default_rng(seed)
    order = random.permutation(len(names))
    columns = {
        "query": names,
        "item_id": np.resize(list("abcde"), len(names)),
        "label": np.where(relevant, "E", "I"),
        "gain": worth * relevant.astype(np.float32),
        "relevant": relevant,
        "split": np.where(names == names[0], "head", "test"),
        **{rung: random.random(len(names)).astype(np.float32) for rung in rungs},
    }
    pq.write_table(pa.table({name: of[order] for name, of in columns.items()}), layout.predictions)
    folder = layout.predictions.parent
    (folder / "config.gin").write_text(config)
    record = StageRecord(
        stage="relevance", stage_version=1, version="0.3.0", bindings={}, inputs={}
    )
    write_record(folder, complete(folder, record, seconds=1.0))
    return columns


def test_the_pairs_that_both_tested_are_compared(tmp_path):
    gin = "x.y = {}\nx.z = 'same'\nscope/x.y = @f()\nM = {}\n"
    one = finished(tmp_path / "a", queries=range(20), seed=1, config=gin.format("%M", 1))
    two = finished(
        tmp_path / "b",
        queries=range(10, 40),
        seed=2,
        rungs=("full", "dsi"),
        config=gin.format("(1, 2)", 1),
    )
    text = compare_runs(tmp_path / "a", tmp_path / "b")
    scores = [
        {
            (query, item): score
            for query, item, score, split in zip(
                of["query"], of["item_id"], of["full"], of["split"], strict=True
            )
            if split == "test"
        }
        for of in (one, two)
    ]
    labels = dict(zip(zip(two["query"], two["item_id"]), two["relevant"]))
    common = sorted(set(scores[0]) & set(scores[1]))
    assert {query for query, _ in common} == {f"query {number}" for number in range(11, 20)}
    values = [
        roc_auc_score([labels[pair] for pair in common], [of[pair] for pair in common])
        for of in scores
    ]
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("──") and "full" in line]
    assert "no_sid" not in text and "dsi" not in text
    value, lift = (line for line in lines if line.startswith("roc_auc"))
    assert all(f"{of:.4f} [" in value for of in values)
    assert f"{values[1] - values[0]:+.4f} [" in lift
    assert "9 test queries, 45 pairs" in text
    assert lines[0].endswith("predictions.parquet (19 queries, 95 pairs)")
    assert lines[1].endswith("predictions.parquet (29 queries, 145 pairs)")
    assert lines[2] == "compared: 9 queries, 45 pairs that both tested"
    differ = text.split("bindings that differ")[1].splitlines()[1:]
    assert [line.strip() for line in differ] == ["x.y", "A  %M", "B  (1, 2)"]


def spell_twice(folder, *, identity):
    """Gives every query of a finished run another spelling, with the same items and scores."""
    layout = Layout(model_dir=folder)
    table = pq.read_table(layout.predictions)
    swapped = [" ".join(reversed(query.upper().split())) for query in table["query"].to_pylist()]
    other = table.set_column(0, "query", pa.array(swapped))
    both = pa.concat_tables([table, other])
    said = identity and identity.metadata()
    pq.write_table(both.replace_schema_metadata(said), layout.predictions)
    stage = layout.predictions.parent
    write_record(stage, complete(stage, read_record(stage), seconds=1.0))


def test_spellings_of_a_query_make_no_interval_narrower(tmp_path):
    def compared():
        lines = compare_runs(tmp_path / "a", tmp_path / "b").splitlines()
        return [line for line in lines if "[" in line and not line.startswith("ece")]

    for name, seed in (("a", 1), ("b", 2)):
        finished(tmp_path / name, queries=range(100, 120), seed=seed)
    once = compared()
    spell_twice(tmp_path / "a", identity=QueryIdentity(word_order=True))
    spell_twice(tmp_path / "b", identity=None)  # as version 0.2 wrote it
    assert compared() == once


def test_what_cannot_be_compared_is_said(tmp_path):
    finished(tmp_path / "a", queries=range(9), seed=1)
    finished(tmp_path / "b", queries=range(20, 29), seed=1)
    finished(tmp_path / "c", queries=range(2, 9), seed=1, flip=True)
    with pytest.raises(InputError, match="no tested query and item in common"):
        compare_runs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match="do not agree whether item 'a' is relevant to 'query 3'"):
        compare_runs(tmp_path / "a", tmp_path / "c")
    finished(tmp_path / "d", queries=range(2, 9), seed=1, worth=0.5)
    message = r"agree what item 'b' gains for 'query 3' \(1.0 and 0.5; 15 of 30 common pairs\)"
    with pytest.raises(InputError, match=message):
        compare_runs(tmp_path / "a", tmp_path / "d")
    with pytest.raises(InputError, match="nowhere/relevance/predictions.parquet: no such file"):
        compare_runs(tmp_path / "a", tmp_path / "nowhere")
