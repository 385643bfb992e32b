"""What `benchmarks/regime.py` counts and keeps, by hand; and one tiny case of it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def regime(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import regime

    return regime


@pytest.fixture
def cells(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import regime_cell

    return regime_cell


@pytest.mark.parametrize(
    ("seeds", "value", "error"),
    [
        pytest.param([(0.03, 0.02)], 0.03, 0.02, id="one seed"),
        # Between seeds .02 / sqrt(3), which is more than .01 / sqrt(3).
        pytest.param([(0.0, 0.01), (0.02, 0.01), (0.04, 0.01)], 0.02, 0.02 / 3**0.5, id="apart"),
        # All the same: the errors over queries are left, squared .0001 and .0007 in the mean.
        pytest.param([(0.01, 0.01), (0.01, 0.0007**0.5)], 0.01, 0.0002**0.5, id="alike"),
    ],
)
def test_a_gain_has_the_larger_of_two_variances(regime, seeds, value, error):
    gain = regime.pooled_gain(seeds)
    assert (gain.value, gain.error) == pytest.approx((value, error))
    assert gain.high - gain.low == pytest.approx(2 * 1.96 * error)
    assert gain.detectable == pytest.approx(2.8 * error)


def found(*, seed, gain, shop, vectors="towers", queries=100, gammas=(1.0,)):
    figures = {"value": 0.8, "gain": gain, "low": gain, "high": gain, "error": 0.001}
    none = figures | {"gain": 0.0, "error": 0.0}
    return {
        "shop": dataclasses.asdict(shop),
        "seed": seed,
        "vectors": vectors,
        "queries": queries,
        "gammas": list(gammas),
        "over_unsupervised": {"0": {"auc": none}, "1": {"auc": figures}, "control": {"auc": none}},
    }


def test_a_map_says_where_codes_are_better(regime):
    shop = regime.QUICK
    cases = [found(seed=seed, gain=0.01, shop=shop) for seed in range(3)]
    cases += [
        found(seed=seed, gain=gain, shop=shop, vectors="untrained")
        for seed, gain in enumerate([0.02, -0.02, 0.0])
    ]
    gains = regime.pooled(cases)["auc"]
    assert gains["towers", 100, "1"].seeds == 3
    said = regime.verdict({"auc": gains})
    assert "better in 1 of 2 cells (towers, 100 queries, γ 1), worse in 0;" in said
    detectable = 2.8 * 0.02 / 3**0.5
    assert f"a gain of {detectable:.4f} would have been detected" in said


def test_a_case_that_is_there_is_not_made_again(regime, monkeypatch, tmp_path, capsys):
    out, made = tmp_path / "cases.jsonl", []

    def case(shop, *, vectors, queries, gammas, seed, scratch):
        made.append((seed, queries, vectors))
        return found(
            seed=seed, gain=0.01, shop=shop, vectors=vectors, queries=queries, gammas=gammas
        )

    monkeypatch.setattr(regime, "case", case)
    given = ["--out", str(out), "--quick", "--gammas", "1", "--vectors", "untrained", "towers"]
    regime.main(given)
    assert made == [(0, count, name) for count in (100, 300) for name in ("untrained", "towers")]
    lines = out.read_text().splitlines()
    # The last line was cut short; a further seed is new, and so is another shop.
    out.write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    made.clear()
    regime.main([*given, "--seeds", "2", "--json", str(tmp_path / "map.json")])
    assert len(made) == 1 + 4 and made[0] == (0, 300, "towers")
    assert "| towers | 300 | 1 | 2 | **+0.0100 [" in capsys.readouterr().out
    cases = [json.loads(text) for text in (tmp_path / "map.json").read_text().splitlines()]
    named = {case["case"]: case for case in cases}
    assert named["regime/towers/300/1/auc"]["ours"] == pytest.approx(0.01)
    made.clear()
    regime.main([*given, "--steps", "41"])
    assert len(made) == 4


def pairs(cells, **changed):
    columns = {
        "query_index": np.array([4, 4, 4, 7, 7]),
        "item_index": np.array([0, 1, 2, 0, 3]),
        "relevant": np.array([True, False, False, True, False]),
        "label": np.array(["E", "S", "S", "E", "I"]),
        "gain": np.ones(5),
        "weight": np.ones(5),
        "in_test": np.ones(5, bool),
    }
    return cells.Pairs(**columns | changed)


def test_fine_grained_pairs_are_of_the_type_that_is_wanted(cells):
    # Item 1 is of the relevant item's type and an S; item 2 an S of another type; item 3 an I.
    types = np.array(["mug", "mug", "cup", "mug"])
    kept = cells._one_attribute_off(pairs(cells), types)
    np.testing.assert_array_equal(kept, [True, True, False, True, False])


def test_agreement_is_the_share_of_pairs_with_the_same_first_codes(cells):
    query = np.array([[1, 2, 3]] * 5)
    item = np.array([[1, 2, 3], [1, 2, 0], [0, 2, 3], [1, 0, 3], [0, 0, 0]])
    found = cells._agreement(query, item, pairs(cells))
    counts = np.array([[1, 2, 0], [1, 0, 1]])  # how often each of the two queries is drawn
    shares = {name: statistic(counts).tolist() for name, statistic in found.items()}
    assert shares["agreement_relevant_1"] == [1.0, 1.0, 1.0]
    assert shares["agreement_relevant_2"] == [0.5, 1.0, 0.0]
    assert shares["agreement_other_1"] == pytest.approx([1 / 3, 0.5, 0.0])
    assert shares["agreement_other_3"] == [0.0, 0.0, 0.0]


def test_fewer_training_queries_are_some_of_more_and_the_others_stay(cells, tmp_path):
    query = np.repeat(np.arange(40), 2)
    split = np.where(query < 30, "train", np.where(query < 35, "head", "test"))
    columns = {"query_index": query, "item_index": query, "split": split.tolist()}
    pq.write_table(pa.table(columns), tmp_path / "judgements.parquet")
    learnt = []
    for most in (5, 20):
        path = cells.with_training_queries(tmp_path, most=most, seed=3)
        table = pq.read_table(path).to_pandas()
        assert (table.split[table.query_index >= 30] == split[query >= 30]).all()
        learnt.append(set(table.query_index[table.split == "train"]))
        assert len(learnt[-1]) == most
    assert learnt[0] < learnt[1]


@pytest.mark.slow
def test_a_case_is_made_of_one_shop(cells, tmp_path):
    shop = cells.Shop(
        items=400, train=120, head=60, test=60, steps=20, sizes=(8, 8, 8), pin_depth=1
    )
    made = cells.case(shop, vectors="brief", queries=60, gammas=[1.0], seed=0, scratch=tmp_path)
    over = json.loads(json.dumps(made))["over_unsupervised"]
    assert set(over) == {"control", "0", "1"}
    assert all(of["gain"] == 0 for of in over["0"].values())
    assert 0.5 < over["1"]["auc"]["value"] < 1
    # Items' first codes are pinned, so what γ moves at level 1 is the queries' alone.
    assert 0 <= over["1"]["agreement_relevant_1"]["value"] <= 1
