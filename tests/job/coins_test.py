"""Labels that a coin tossed: nothing can be learnt of them, so that nothing may seem to be."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from dsirm_jax.relevance.evaluate import evaluate
from dsirm_jax.relevance.pairs import JudgedPairs
from dsirm_jax.run.layout import Layout
from tests.job.tiny import SMALL, dsirm

COLOURS = ("red", "blue", "green", "black", "white", "grey")
THINGS = ("kettle", "chair", "lamp", "mug", "pot", "rug", "sofa", "vase", "desk", "bowl")
JUDGED = 10
"""Items of a query; each query has 6 x 10 spellings to choose from."""
RUNGS = "{'no_sid': @groups.without_sids(), 'full': @groups.all_groups()}"
NOISE = 0.15
"""More than three standard deviations of ROC-AUC over 200 coins."""


def write(folder):
    """Writes items, and judgements in which every query has three spellings of the same coins.

    The table's own split has one of them in `test` and the others in `train`, for a third of all.
    """
    toss = np.random.default_rng(3)
    queries = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    with (folder / "items.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title"])
        for number in range(120):
            rows.writerow([f"i{number:03}", f"{queries[number // 2]} no. {number}"])
    with (folder / "judgements.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "item_id", "label", "split"])
        for place, query in enumerate(queries):
            items, labels = toss.permutation(120)[:JUDGED], toss.integers(2, size=JUDGED)
            for spelling in (query, query.title(), query.upper()):
                is_test = place % 3 == 0 and spelling == query
                for item, label in zip(items, labels, strict=True):
                    split = "test" if is_test else "train"
                    rows.writerow([spelling, f"i{item:03}", label, split])


def of_one_spelling(layout):
    """Returns the metrics of the rows alone whose query is in lower case.

    Spellings have the same scores and the same coins: three of them are no more evidence than one.
    """
    table = pq.read_table(layout.predictions, filters=[("split", "=", "test")])
    table = table.filter([query == query.lower() for query in table["query"].to_pylist()])
    query = np.unique(table["query"].to_numpy(), return_inverse=True)[1]
    judged = JudgedPairs(
        query_index=query,
        identity=query,
        relevant=table["relevant"].to_numpy(),
        gain=table["gain"].to_numpy(),
        label=table["label"].to_numpy(),
        segments={},
    )
    scores = {rung: table[rung].to_numpy() for rung in ("no_sid", "full")}
    return evaluate(pairs=judged, scores=scores, lifts=[("full", "no_sid")], seed=0)


@pytest.mark.slow
def test_coins_of_twins_across_splits_teach_nothing(tmp_path):
    write(tmp_path)
    model_dir = tmp_path / "run"
    dsirm(
        "run",
        model_dir,
        f"--gin.ITEMS='{tmp_path}/items.csv'",
        f"--gin.JUDGEMENTS='{tmp_path}/judgements.csv'",
        "--gin.job.Job.rungs=()",
        f"--gin.relevance.run.rungs={RUNGS}",
        base=["--gin_file=gin/runs/tables.gin", "--gin.prepare.run.vocabulary_size=500", *SMALL],
    )
    summary = json.loads((model_dir / "prepare/summary.json").read_text())
    texts = [finding["text"] for finding in summary["findings"]]
    assert sum(text.startswith("20 of 60 queries are in both splits") for text in texts) == 1
    table = pq.read_table(model_dir / "prepare/queries.parquet").to_pylist()
    tested = {row["identity"] for row in table if row["split"] == "test"}
    assert len(tested) == 20
    assert not tested & {row["identity"] for row in table if row["split"] != "test"}
    metrics = json.loads((model_dir / "relevance/metrics.json").read_text())
    assert metrics["pairs"] == 20 * 3 * JUDGED
    for rung, of_rung in metrics["rungs"].items():
        assert abs(of_rung["roc_auc"]["value"] - 0.5) < NOISE, rung
    alone = of_one_spelling(Layout(model_dir=model_dir))
    for kind in ("rungs", "lifts"):
        for name, expected in alone[kind].items():
            found = metrics[kind][name]["roc_auc"]
            for end in ("value", "low", "high"):
                assert found[end] == pytest.approx(expected["roc_auc"][end], abs=1e-6), (name, end)
