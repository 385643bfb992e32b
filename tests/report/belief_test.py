import json

import pytest

from dsirm_jax.report.belief import belief_panel, level_name, reliability_points, summary
from dsirm_jax.report.build import write_report
from tests.report.build_test import Page


def interval(value, *, off=0.0625):
    return {"value": value, "low": value - off, "high": value + off}


def of_level(branch, *, rho=None, counts=("1", "3-4")):
    types = {count: interval(1 + place) | {"queries": 2} for place, count in enumerate(counts)}
    level = {
        "branch": interval(branch),
        "beams": interval(branch / 2),
        "entropy": interval(1.5),
        "spearman": rho,
        "types": types,
        "ece": interval(0.125) | {"floor": 0.03125},
        "reliability": [
            {"from": 0.0, "prefixes": 1234, "probability": 0.03, "share": 0.25},
            {"from": 0.4, "prefixes": 2, "probability": 0.4375, "share": 0.5},
        ],
    }
    return {name: value for name, value in level.items() if value}


def of_rung(*, counts=("1", "3-4"), **first):
    levels = [of_level(0.5, counts=counts, **first)]
    levels += [of_level(branch, counts=counts) for branch in (0.375, 0.25)]
    named = {f"level_{number}": level for number, level in enumerate(levels, start=1)}
    return {"mass": interval(0.875), **named}


def belief(rungs=("full", "unsupervised"), *, segments=("head", "tail"), types="title", **first):
    within = {"mass": interval(0.75)} | {
        f"level_{level}": {name: interval(0.5) for name in ("branch", "beams", "entropy")}
        for level in (1, 2, 3)
    }
    return {
        "queries": 4,
        "types": types,
        "rungs": {rung: of_rung(**first) for rung in rungs},
        "segments": {
            name: {"queries": 2, "rungs": dict.fromkeys(rungs, within)} for name in segments
        },
    }


def page(layout, found, **more):
    metrics = json.loads(layout.metrics.read_text()) | more
    metrics |= {} if found is None else {"belief": found}
    layout.metrics.write_text(json.dumps(metrics))
    return Page(write_report(layout=layout, title="A run").read_text("utf-8"))


def test_levels_are_called_by_their_codes():
    assert [level_name(place, of=3) for place in range(3)] == [
        *("first code", "first 2 codes", "whole SID")
    ]
    assert level_name(0, of=1) == "whole SID"


@pytest.mark.parametrize(
    "rho, said",
    [
        pytest.param(interval(0.25), "the less sure it is of the first code.", id="less sure"),
        pytest.param(interval(-0.25), "the surer it is of the first code.", id="surer"),
        pytest.param(interval(0.03), "tells nothing of the kinds of products that suit.", id="no"),
        pytest.param(None, "and 25.0 % on their whole SIDs (full model).", id="undefined"),
    ],
)
def test_the_summary_says_what_the_interval_allows(rho, said):
    text = summary(belief(rho=rho))
    assert text.startswith("Of the probability 50.0 % lies on first codes of relevant items and")
    assert text.endswith(said)


def test_a_run_without_the_full_model_speaks_of_the_first_rung():
    assert summary(belief(["unsupervised"])).endswith("whole SIDs (unsupervised SIDs).")


def test_points_lie_where_probability_and_share_meet():
    points = reliability_points(belief(), "level_1")
    assert points["full"][1] == {"x": 43.75, "y": 50.0, "prefixes": 2}


def test_the_page_shows_belief_by_level_segment_and_types(layout):
    found = page(layout, belief(rho=interval(0.25)))
    assert ("href", "#belief") in found.attributes and ("id", "belief") in found.attributes
    for told in (
        "Measured on the 4 test queries with a relevant item",
        "right in all queries 4 head 2 tail 2 among the beams all queries",
        "full model first code 0.5000 0.4375 – 0.5625 0.5000 0.4375 – 0.5625",
        "all SIDs 1 1 1 0.8750 0.8125 – 0.9375",
        "relevant items of a query (head nouns of titles)",
        "product types queries first code first 2 codes whole SID full model 1 2 1.0000",
        "3-4 2 2.0000 1.9375 – 2.0625",
        "Spearman’s ρ +0.2500 * +0.1875 … +0.3125 – –",
        "ECE 0.1250 0.0625 – 0.1875, floor 0.0312",
        "full model: 1,234 prefixes of 3.0 %, 25.0 % of them right",
    ):
        assert told in found.text, told
    assert found.tags.count("circle") >= 2 * 2 * 3


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(belief(segments=()), id="no segment"),
        pytest.param(belief(segments=("tail",)), id="one segment"),
        pytest.param(belief(["full"], types="first code"), id="no categories"),
        pytest.param(belief(counts=()), id="no types"),
    ],
)
def test_what_a_run_lacks_is_left_out(layout, found):
    text = page(layout, found).text
    assert "Is the probability honest?" in text and "full model first code" in text
    part = text.split("How sure is it, and of what?")[1].split("What came in")[0]
    assert ("head" in part.split("Probability on")[1].split("Ambiguous")[0]) == (
        "head" in found["segments"]
    )


def test_a_run_of_an_earlier_version_says_that_it_has_none(layout):
    hits = {"queries": 3, "rungs": {}, "lifts": {}, "segments": {}}
    told = page(layout, None, hits=hits)
    assert "How sure the generator is of its SIDs was not measured" in told.text
    assert ("href", "#belief") not in told.attributes
    assert belief_panel({"hits": hits}) is None
    # A run whose test queries have no relevant item has nothing to measure either.
    without = page(layout, {}, hits={})
    assert "was not measured" not in without.text and belief_panel({"belief": {}}) is None
