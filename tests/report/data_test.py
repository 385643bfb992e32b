import json

import pytest

from dsirm_jax.report.data import category_panel, data_panels


@pytest.fixture
def summary(layout):
    return json.loads((layout.stage("prepare") / "summary.json").read_text())


def shares(panel):
    return {bar.name: (bar.count, bar.share) for bar in panel["bars"]}


def test_shares_are_of_what_the_panel_counts(summary, hostile):
    panels = {panel["title"]: shares(panel) for panel in data_panels(summary)}
    assert panels["Labels of judged items"] == {"E": (4, 4 / 6), hostile: (2, 2 / 6)}
    assert panels["Queries by segment"] == {"head": (1, 0.25), "torso": (0, 0), "tail": (3, 0.75)}
    # Of the items kept; an item may have several.
    assert panels["Items that have a …"]["colour"] == (5, 1.0)
    assert panels["Items that have a …"]["brand"] == (2, 0.4)
    for title, buckets in (
        ("Words of a title", summary["items"]["title_words"]),
        ("Words of a query", summary["queries"]["query_words"]),
        ("Judged items of a query", summary["queries"]["judgements_per_query"]),
    ):
        assert list(panels[title]) == list(buckets)
        assert sum(share for _, share in panels[title].values()) == pytest.approx(1)


def test_queries_with_near_twins_are_shown_where_they_were_counted(summary):
    assert len(data_panels(summary)) == 6
    counted = {"train": 2, "head": 0, "test": 1}
    panel = data_panels(summary | {"queries": summary["queries"] | {"near_twins": counted}})[-1]
    assert panel["title"] == "Queries with a near-twin in another split"
    assert shares(panel) == {"train": (2, 0.5), "head": (0, 0), "test": (1, 0.25)}


def test_categories_that_are_not_named_are_counted_together(summary, hostile):
    panel = category_panel(summary)
    # Of the four items that have a category.
    assert shares(panel) == {hostile: (2, 0.5), "Kitchen": (1, 0.25)}
    assert (panel["others"], panel["rest"]) == (1, 1)


def test_a_shop_without_categories_has_no_panel_of_them(summary):
    nothing = {"with_category": 0, "categories": 0, "largest_categories": {}}
    assert category_panel(summary | {"items": summary["items"] | nothing}) is None
