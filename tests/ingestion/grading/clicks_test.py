"""Labels from counts: by the lower end of rates, corrected for the place they were shown at."""

from __future__ import annotations

import math

import ibis
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from dsirm_jax.ingestion.grading.clicks import ClickModel
from dsirm_jax.ingestion.grading.labels import Grades, LabelTable
from dsirm_jax.ingestion.grading.propensities import Given, Harvested, Power
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.io.errors import InputError
from tests.ingestion.joins.pair_labels_test import pairs_of
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop

TWO = LabelTable(gains={"0": 0.0, "1": 1.0}, relevant=("1",))
ESCI = LabelTable(gains={"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}, relevant=("E",))
RAW = {"prior_impressions": 0.0, "relative": False}


def pair(number, impressions, clicks=0, purchases=0, **more):
    counts = {"impressions": impressions, "clicks": clicks, "purchases": purchases}
    return {"item_id": f"i{number:05}"} | counts | more


def labels_of(rows, model, *, labels=TWO):
    """Returns the label of each pair by the number of its item."""
    pairs, found = pairs_of(rows, labels=labels, clicks=model)
    return {int(item[1:]): row["label"] for (_, item), row in pairs.items()}, found


def test_one_click_in_thousands_of_impressions_is_no_relevance():
    clicks = [900] * 18 + [40] * 16 + [3] * 24
    rows = [pair(number, 5000, count) for number, count in enumerate(clicks)]
    labels, found = labels_of(rows, ClickModel())
    assert labels == {number: "01"[count == 900] for number, count in enumerate(clicks)}
    [finding] = found.findings
    assert not finding.is_fault
    assert "58 of 58 pairs have counts and no label" in finding.text
    assert "'1' from 0.0292 clicks an impression (of all pairs 0.0583)" in finding.text


@pytest.mark.parametrize(("confidence", "threshold"), [(0.8, 0.05), (0.975, 0.3)])
def test_the_lower_end_is_that_of_wilson(confidence, threshold):
    random = np.random.default_rng(0)
    shown = random.integers(1, 2000, size=300)
    clicked = random.binomial(shown, random.beta(2, 2 / threshold, size=300))
    model = ClickModel(
        click_rates={"1": threshold}, confidence=confidence, least_impressions=1, **RAW
    )
    rows = [pair(number, int(n), int(k)) for number, (n, k) in enumerate(zip(shown, clicked))]
    labels, _ = labels_of(rows, model)
    for number, (n, k) in enumerate(zip(shown, clicked)):
        interval = scipy.stats.binomtest(k, n).proportion_ci(2 * confidence - 1, method="wilson")
        assert labels[number] == "01"[int(interval.low > threshold)]
    assert set(labels.values()) == {"0", "1"}


def test_each_label_takes_a_rate_of_clicks_or_of_purchases():
    rows = [
        pair(0, 10_000, 2000, 0),
        pair(1, 10_000, 700, 0),
        pair(2, 10_000, 300, 0),
        pair(3, 10_000, 300, 200),
        pair(4, 10_000, 700, 1),
        pair(5, 10_000),
    ]
    model = ClickModel(
        click_rates={"C": 0.02, "S": 0.05, "E": 0.1},
        purchase_rates={"E": 0.01},
        **RAW,
    )
    pairs, _ = pairs_of(rows, labels=ESCI, clicks=model)
    assert [row["label"] for _, row in sorted(pairs.items())] == ["E", "S", "C", "E", "S", "I"]
    decided = [2000, 700, 300, 200, 700, 10_000]
    weights = [row["weight"] for _, row in sorted(pairs.items())]
    assert weights == pytest.approx([math.log2(1 + count) for count in decided])


def test_by_default_a_purchase_is_the_best_label_and_a_click_the_second_best():
    rows = [
        pair(0, 1000, 100, 20),
        pair(1, 1000, 100),
        pair(2, 1000),
        pair(3, 1000, 1),
        pair(4, 2, 2, 2),
        pair(5, 500, 50, 0, weight=0.25),
        *[pair(5, 250, 25)] * 2,  # rows of a pair add up
        {"item_id": "i00006", "label": "C", "clicks": 9, "purchases": 9},
    ]
    pairs, found = pairs_of(rows, labels=ESCI)
    rows = {int(item[1:]): (row["label"], row["weight"]) for (_, item), row in pairs.items()}
    assert rows == {
        0: ("E", pytest.approx(math.log2(21))),
        1: ("S", pytest.approx(math.log2(101))),
        2: ("I", pytest.approx(math.log2(1001))),
        3: ("I", pytest.approx(math.log2(1001))),
        5: ("S", 0.25),
        6: ("C", 1.0),
    }
    assert found.left_out == 1
    fault = [finding.text for finding in found.findings if finding.is_fault]
    assert fault == [
        "1 of 7 pairs have no label and fewer than 10 impressions "
        "(clicks.ClickModel.least_impressions), 0 of them none, and are left out"
    ]


def test_one_purchase_in_thousands_of_impressions_is_no_relevance_either():
    clicks = [(900, 0)] * 18 + [(3, 0)] * 40 + [(3, 1), (3, 20)]
    labels, _ = labels_of([pair(n, 5000, *counts) for n, counts in enumerate(clicks)], ClickModel())
    assert [labels[0], labels[20], labels[58], labels[59]] == ["1", "0", "0", "1"]


def test_a_prior_draws_rates_of_few_impressions_to_that_of_the_table():
    rows = [pair(number, 1000, 20) for number in range(40)] + [pair(99, 12, 6), pair(98, 1200, 600)]
    for prior, few in ((0.0, "1"), (200.0, "0")):
        model = ClickModel(click_rates={"1": 4.0}, prior_impressions=prior)
        labels, found = labels_of(rows, model)
        assert (labels[0], labels[98], labels[99]) == ("0", "1", few)
    assert found.summary["behaviour"]["click_rate"] == pytest.approx(1406 / 41_212)


def test_what_was_never_clicked_has_the_lowest_label_whatever_the_prior():
    rows = [pair(0, 1000, 500), pair(1, 10)]
    labels, _ = labels_of(rows, ClickModel(prior_impressions=1e6))
    assert labels == {0: "1", 1: "0"}


def shown_by_position(*, places, seed=0, pairs=400, spread=1):
    """Simulates clicks of the position-based model, good items below and bad ones on top.

    Returns:
      Rows of a log, one a pair and place; and whether each pair is relevant.
    """
    random = np.random.default_rng(seed)
    looks = 1 / np.arange(1, places + 1) ** 1.2
    relevant = random.random(pairs) < 0.5
    rows = []
    for number in range(pairs):
        # An engine that prefers what is bad.
        lowest = max(spread, places // 2)
        top = random.integers(lowest, places) - spread if relevant[number] else 0
        for place in range(top, top + spread + 1):
            shown = int(random.integers(800, 1600))
            clicked = random.binomial(shown, looks[place] * (0.5 if relevant[number] else 0.03))
            rows.append(pair(number, shown, int(clicked), position=int(place) + 1))
    return rows, relevant


def agreement(labels, relevant):
    return np.mean([labels[number] == "01"[int(is_one)] for number, is_one in enumerate(relevant)])


@pytest.mark.parametrize("kind", ["power", "given", "harvested"])
def test_propensities_find_what_the_place_hides(kind):
    rows, relevant = shown_by_position(places=12, spread=3 if kind == "harvested" else 1)
    propensities = {
        "power": Power(eta=1.2),
        "given": Given(values=[place**-1.2 for place in range(1, 13)]),
        "harvested": Harvested(),
    }[kind]
    raw, plain = labels_of(rows, ClickModel())
    assert agreement(raw, relevant) < 0.95
    assert any("is not used; bind clicks.ClickModel.propensities" in f.text for f in plain.findings)
    found, corrected = labels_of(rows, ClickModel(propensities=propensities))
    assert agreement(found, relevant) > 0.98
    assert not any(finding.is_fault for finding in corrected.findings)


def test_harvested_propensities_are_those_of_the_log():
    rows, _ = shown_by_position(places=10, spread=6, pairs=600)
    judgements = judgement_table(rows)
    values = Harvested().of(judgements)
    assert values == pytest.approx([place**-1.2 for place in range(1, 11)], rel=0.1)
    # Nothing was shown at both 3 and 4: from there on all are as the last that is known.
    apart = [row for row in rows if row["position"] <= 3] + [
        row | {"item_id": f"other {row['item_id']}"} for row in rows if row["position"] > 3
    ]
    assert Harvested().of(judgement_table(apart)) == values[:3]
    assert Harvested(least_clicks=10**9).of(judgements) == [1.0]


def judgement_table(rows):
    filled = [{"query": "q"} | row for row in rows]
    return ibis.memtable(pa.Table.from_pylist(filled))


def test_the_rate_at_one_place_is_divided_by_its_propensity():
    rows = [pair(0, 1000, 100, position=1), pair(1, 1000, 100, position=4), pair(2, 1000, 100)]
    model = ClickModel(
        click_rates={"1": 0.2}, confidence=0.5, propensities=Given(values=(1.0, 0.25)), **RAW
    )
    labels, found = labels_of(rows, model)
    assert labels == {0: "0", 1: "1", 2: "0"}  # .1, .4 and, of no known place, .1
    assert found.summary["behaviour"]["click_rate"] == pytest.approx(300 / 2250)


@pytest.mark.parametrize("propensities", [None, Power(), Harvested()], ids=["none", "power", "own"])
def test_same_labels_from_another_engine_and_in_any_order(propensities):
    rows, _ = shown_by_position(places=6, spread=2, pairs=80)
    model = ClickModel(propensities=propensities)
    first, one = pairs_of(rows, labels=TWO, clicks=model)
    second, other = pairs_of(rows[::-1], labels=TWO, clicks=model, engine=ibis.datafusion)
    assert first.keys() == second.keys()
    for key, row in first.items():
        assert second[key] == row | {"weight": pytest.approx(row["weight"], rel=1e-12)}
    assert one.summary == other.summary


def counted(**columns):
    """Returns a shop in which every judgement has these counts, and no label."""
    items, judgements = shop()
    return items, [
        {"query": row["query"], "item_id": row["item_id"]}
        | {name: count(number) for name, count in columns.items()}
        for number, row in enumerate(judgements)
    ]


@pytest.mark.parametrize("column", ["clicks", "purchases"])
def test_clicks_without_impressions_stop_the_run(tmp_path, column):
    rows = Rows(*counted(**{column: lambda number: 1 + number % 5}))
    with pytest.raises(InputError, match="none has impressions or a label.*no irrelevant") as error:
        prepare(source=rows, out_dir=tmp_path, **SETTINGS)
    assert "map a column to impressions in JUDGEMENT_COLUMNS" in str(error.value)


def test_too_few_impressions_everywhere_stop_the_run(tmp_path):
    rows = Rows(*counted(clicks=lambda _: 1, impressions=lambda _: 9))
    with pytest.raises(InputError, match=r"fewer impressions than clicks.ClickModel.least_impres"):
        prepare(source=rows, out_dir=tmp_path, **SETTINGS)


def test_one_class_alone_stops_the_run(tmp_path):
    items, judgements = shop()
    judgements = [row | {"label": "E"} for row in judgements]
    with pytest.raises(InputError, match="split train has .* and no irrelevant one"):
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)


def test_queries_whose_pairs_are_all_left_out_are_no_queries(tmp_path):
    items, judgements = shop()
    lone = [{"query": "lone", "item_id": "i001", "clicks": 1}]
    rare = [judgements[0] | {"item_id": "i039", "label": None, "clicks": 1, "impressions": 3}]
    judgements = [row for row in judgements if row["item_id"] != "i039"]
    summary = prepare(
        source=Rows(items, judgements + lone + rare), out_dir=tmp_path / "a", **SETTINGS
    )
    prepare(source=Rows(items, judgements), out_dir=tmp_path / "b", **SETTINGS)
    for name in ("queries", "judgements", "examples"):
        assert read(tmp_path / "a", name) == read(tmp_path / "b", name)
    assert summary["judgements"]["kept"] == len(judgements) + 2
    assert summary["judgements"]["behaviour"]["too_few_impressions"] == 2


def test_labels_that_are_numbers_need_to_be_told_what_a_click_is():
    labels = Grades(relevant_from=2, most=3)
    rows = [pair(0, 100, 50), pair(1, 100)]
    with pytest.raises(InputError, match="bind clicks.ClickModel.click_rates"):
        pairs_of(rows, labels=labels)
    found, _ = labels_of(rows, ClickModel(click_rates={2.5: 0.5}), labels=labels)
    assert found == {0: "2.5", 1: "0"}


def test_more_clicks_than_impressions_are_said():
    labels, found = labels_of([pair(0, 20, 50), pair(1, 100)], ClickModel())
    assert labels == {0: "1", 1: "0"}
    [fault] = [finding.text for finding in found.findings if finding.is_fault]
    assert fault.startswith("1 of 2 counted pairs have more clicks than impressions")


def test_propensities_without_positions_are_said():
    _, found = labels_of([pair(0, 20, 5), pair(1, 100)], ClickModel(propensities=Power()))
    [fault] = [finding.text for finding in found.findings if finding.is_fault]
    assert "no counted pair has a position" in fault


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: ClickModel(confidence=0.4), "ClickModel.confidence is 0.4"),
        (lambda: ClickModel(confidence=1.0), "ClickModel.confidence is 1.0"),
        (lambda: ClickModel(prior_impressions=-1), "ClickModel.prior_impressions is -1"),
        (lambda: ClickModel(least_impressions=0), "ClickModel.least_impressions is 0"),
        (lambda: ClickModel(click_rates=0.5), "ClickModel.click_rates is 0.5; bind labels"),
        (lambda: ClickModel(click_rates={"1": 0}), r"click_rates\['1'\] is 0"),
        (lambda: ClickModel(propensities=Power), "ClickModel.propensities is .*Power"),
        (lambda: ClickModel(click_rates={"2": 1}).steps(TWO), "click_rates has '2', which is no"),
        (
            lambda: ClickModel(click_rates={"E": 0.1, "S": 0.2}).steps(ESCI),
            "bind higher rates for higher labels",
        ),
        (lambda: Given(values=()), "Given.values is ()"),
        (lambda: Given(values=(1.0, 0)), r"Given.values\[1\] is 0"),
        (lambda: Given(values=(1.5,)), r"Given.values\[0\] is 1.5"),
        (lambda: Power(eta=math.nan), "Power.eta is nan"),
        (lambda: Harvested(least_clicks=0), "Harvested.least_clicks is 0"),
    ],
    ids=[
        *("confidence below a half", "confidence of one", "negative prior", "no impressions"),
        *("rates as a number", "rate of zero", "class as propensities", "unknown label"),
        *("falling rates", "no places", "propensity of zero", "propensity above one"),
        *("nan eta", "no clicks"),
    ],
)
def test_settings(model, message):
    with pytest.raises(InputError, match=message):
        model()
