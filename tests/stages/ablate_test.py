import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run.layout import Layout
from dsirm_jax.stages.ablate import Ladder, outlook


@pytest.mark.parametrize("folds", [-1, 0, 1, 2.0])
def test_less_than_two_folds_are_refused(folds):
    with pytest.raises(InputError, match=f"Ladder.folds is {folds}; bind a whole .* at least 2"):
        Ladder(folds=folds)


@pytest.mark.parametrize("seeds", [(), (1, 2, 1)], ids=str)
def test_seeds_are_some_and_different(seeds):
    with pytest.raises(InputError, match="gin binding Ladder.seeds is .*different seeds"):
        Ladder(seeds=seeds)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="Ladder.seeds is -1; bind a whole number of at least 0"):
        Ladder(seeds=(0, -1))


def prepared(folder, *, queries=200):
    """Returns a run of which `prepare` wrote judgements, 5 of each query."""
    layout = Layout(model_dir=folder)
    layout.judgements.parent.mkdir(parents=True)
    query = np.repeat(np.arange(queries), 5)
    relevant = np.random.default_rng(0).random(len(query)) < 0.4
    pq.write_table(pa.table({"query_index": query, "relevant": relevant}), layout.judgements)
    pq.write_table(pa.table({"query": [f"query {n}" for n in range(queries)]}), layout.queries)
    return layout


def test_before_it_runs_a_ladder_says_what_it_can_tell(tmp_path):
    small, large = (
        outlook(prepared(tmp_path / str(size), queries=size), former=tmp_path / "none")
        for size in (200, 3200)
    )
    assert small.startswith("200 queries, 1,000 pairs: detectable lift in ROC-AUC ± 0.0")
    assert "if ROC-AUC is 0.8 and correlates at 0.95 between rungs; design effect 1." in small
    lifts = [float(re.search("± ([.0-9]+)", text)[1]) for text in (small, large)]
    assert lifts[0] / lifts[1] == pytest.approx(4, rel=0.1)


def test_a_former_ladder_says_it_by_its_resamples(tmp_path):
    about = {"value": 0.01, "low": 0.0, "high": 0.02, "relative": 0.0125}
    lift = {"rung": "full", "over": "no_sid", "roc_auc": about}
    lift["power"] = {"standard_error": 0.004, "detectable": 0.0112, "target_queries": 999}
    former = {
        "queries": 800,
        "controls": ["no_sid"],
        "rungs": {"no_sid": {"roc_auc": {"value": 0.8}}},
        "lifts": {"full": lift},
    }
    (tmp_path / "ablation.json").write_text(json.dumps(former))
    text = outlook(prepared(tmp_path / "run"), former=tmp_path / "ablation.json")
    # A quarter of the queries: twice the error, of which 2.80 are .0224; (.0224 / .01232)² x 200.
    assert "± 0.0224 (80 % power); +1.54 % relative needs 662 queries" in text
    assert "(as full over no_sid had on 800 queries)" in text


def test_of_one_class_there_is_nothing_to_say(tmp_path):
    layout = prepared(tmp_path, queries=3)
    table = pa.table({"query_index": np.arange(3), "relevant": np.ones(3, bool)})
    pq.write_table(table, layout.judgements)
    assert outlook(layout, former=tmp_path / "none") == "3 queries, 3 pairs"
