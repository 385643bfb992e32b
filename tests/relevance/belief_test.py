import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.metrics.belief import Prefixes
from dsirm_jax.relevance import belief
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import SCHEMA, write_versioned


def of(query, mass, right):
    return Prefixes(np.array(query), np.array(mass), np.array(right))


FIRST = of([0, 0, 1, 2, 3], [0.5, 0.25, 0.5, 0.75, 0.125], [True, False, True, False, False])
WHOLE = of(
    [0, 0, 0, 1, 2, 3],
    [0.25, 0.25, 0.25, 0.5, 0.75, 0.125],
    [True, False, False, False, False, False],
)
BELIEF = belief.Belief(
    queries=np.array([1, 2, 4, 6]),
    branch=np.array([[0.75, 0.25], [0.5, 0.125], [0, 0], [0.25, 0.125]]),
    first_entropy=np.array([1.0, 0.5, 0.25, 0.75]),
    first_probability=np.array([0.75, 0.25, 0.5, 0.875, 0.25]),
    prefixes=(FIRST, WHOLE),
)
SEGMENT = np.array(["tail"] * 4 + ["head"] * 3)
TYPES = np.array([4, 2, 1, 2])


def evaluated(found=BELIEF, *, types=TYPES, segment=SEGMENT, identity=None, **more):
    return belief.evaluate_belief(
        {"full": found},
        types={"full": types},
        segment=segment,
        identity=np.arange(7) if identity is None else identity,
        **{"resamples": 200} | more,
    )


def value(of_rung, *keys):
    for key in keys:
        of_rung = of_rung[key]
    return of_rung["value"]


def test_belief_by_hand():
    found = evaluated()
    assert found["queries"] == 4
    full = found["rungs"]["full"]
    assert value(full, "mass") == (0.75 + 0.5 + 0.75 + 0.125) / 4
    assert value(full, "level_1", "branch") == 0.375
    assert value(full, "level_2", "branch") == 0.125
    assert value(full, "level_1", "beams") == 0.25  # .5, .5, 0 and 0
    assert value(full, "level_2", "beams") == 0.0625
    assert value(full, "level_1", "entropy") == 0.625
    # Three SIDs as probable as each other, then queries with one SID each.
    assert value(full, "level_2", "entropy") == pytest.approx(np.log(3) / 4)
    by_types = full["level_1"]["types"]
    assert {count: (of["value"], of["queries"]) for count, of in by_types.items()} == {
        "1": (0.25, 1),
        "2": (0.625, 2),
        "3-4": (1.0, 1),
    }
    # Ranks of entropies 4 2 1 3, of types 4 2.5 1 2.5.
    assert value(full, "level_1", "spearman") == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    # Exact at the first level, of 15 bins: .25, .25 wrong; .5 right; .75 right; .875 wrong.
    assert value(full, "level_1", "ece") == pytest.approx((0.5 + 0.5 + 0.25 + 0.875) / 5)
    assert full["level_1"]["ece"]["floor"] > 0
    assert full["level_1"]["reliability"] == [
        {"from": 3 / 15, "prefixes": 2, "probability": 0.25, "share": 0},
        {"from": 7 / 15, "prefixes": 1, "probability": 0.5, "share": 1},
        {"from": 11 / 15, "prefixes": 1, "probability": 0.75, "share": 1},
        {"from": 13 / 15, "prefixes": 1, "probability": 0.875, "share": 0},
    ]
    # The mass of the beams below: .125 wrong; one of three .25 right; .5 and .75 wrong.
    assert value(full, "level_2", "ece") == pytest.approx((0.125 + 0.25 + 0.5 + 0.75) / 6)
    assert set(found["segments"]) == {"head", "tail"}
    head = found["segments"]["head"]
    assert head["queries"] == 2 and set(head["rungs"]["full"]["level_1"]) == {
        *("branch", "beams", "entropy")
    }
    assert value(head["rungs"]["full"], "level_1", "branch") == 0.125
    json.dumps(found, allow_nan=False)


def test_every_interval_holds_its_value_and_spellings_are_drawn_together():
    same = evaluated(identity=np.zeros(7, int))["rungs"]["full"]
    apart = evaluated()["rungs"]["full"]
    for level in ("level_1", "level_2"):
        for name in ("branch", "beams", "entropy", "ece"):
            of_same, of_apart = same[level][name], apart[level][name]
            assert of_same["value"] == of_apart["value"]
            assert of_apart["low"] <= of_apart["value"] <= of_apart["high"]
            # Every resample is the one identity that there is.
            assert of_same["low"] == pytest.approx(of_same["value"])
            assert of_same["high"] == pytest.approx(of_same["value"])
        assert apart[level]["branch"]["low"] < apart[level]["branch"]["high"]


def test_the_order_of_queries_does_not_matter():
    order = np.array([2, 0, 3, 1])
    place = np.argsort(order)
    moved = belief.Belief(
        queries=BELIEF.queries[order],
        branch=BELIEF.branch[order],
        first_entropy=BELIEF.first_entropy[order],
        first_probability=BELIEF.first_probability,
        prefixes=tuple(
            Prefixes(place[each.query], each.mass, each.right) for each in BELIEF.prefixes
        ),
    )
    found, expected = evaluated(moved, types=TYPES[order]), evaluated()
    for level in ("level_1", "level_2"):
        for name in ("branch", "beams", "entropy", "spearman", "ece"):
            one, other = (value(each["rungs"]["full"], level, name) for each in (found, expected))
            assert one == pytest.approx(other), name


@pytest.mark.parametrize(
    "types, segment",
    [
        pytest.param(np.zeros(4, int), SEGMENT, id="no types"),
        pytest.param(np.ones(4, int), SEGMENT, id="one type each"),
        pytest.param(TYPES, np.array(["tail"] * 7), id="one segment"),
    ],
)
def test_what_is_undefined_is_left_out(types, segment):
    found = evaluated(types=types, segment=segment)
    json.dumps(found, allow_nan=False)
    level = found["rungs"]["full"]["level_1"]
    assert ("spearman" in level) == (len({*types}) > 1)
    assert ("types" in level) == types.any()
    assert set(found["segments"]) == {*segment[BELIEF.queries]}


def write_hits(path, found):
    masses, rights = (
        [
            [getattr(level, name)[level.query == row].tolist() for level in found.prefixes]
            for row in range(len(found.queries))
        ]
        for name in ("mass", "right")
    )
    rows = [np.flatnonzero(FIRST.query == row) for row in range(len(found.queries))]
    firsts = [found.first_probability[of].tolist() for of in rows]
    of_lists = {
        "branch": pa.array(found.branch.tolist(), pa.list_(pa.float32())),
        "prefix_mass": pa.array(masses, pa.list_(pa.list_(pa.float32()))),
        "prefix_right": pa.array(rights, pa.list_(pa.list_(pa.bool_()))),
    }
    columns = {
        "query_index": pa.array(found.queries, pa.int64()),
        "ranks": pa.array([[1, 0]] * len(found.queries), pa.list_(pa.int32())),
        "first_entropy": pa.array(found.first_entropy, pa.float32()),
        "first_probability": pa.array(firsts, pa.list_(pa.float32())),
        **of_lists,
    }
    write_versioned(path, pa.table(columns), version="v")


def test_belief_is_read_as_it_was_written(tmp_path):
    write_hits(tmp_path / "hits.parquet", BELIEF)
    found = belief.read_belief(tmp_path / "hits.parquet")
    for name in ("queries", "branch", "first_entropy", "first_probability"):
        np.testing.assert_array_equal(getattr(found, name), getattr(BELIEF, name))
    for one, other in zip(found.prefixes, BELIEF.prefixes, strict=True):
        for name in Prefixes._fields:
            assert getattr(one, name).tolist() == getattr(other, name).tolist()


def test_there_is_no_belief_in_a_table_of_ranks_or_without_queries(tmp_path):
    path = tmp_path / "hits.parquet"
    pq.write_table(pa.table({"query_index": [1], "ranks": [[1, 2]]}), path)
    assert belief.read_belief(path) is None
    nothing = belief.Belief(
        queries=np.empty(0, int),
        branch=np.empty((0, 2)),
        first_entropy=np.empty(0),
        first_probability=np.empty(0),
        prefixes=(FIRST, WHOLE),
    )
    write_hits(path, nothing)
    assert belief.read_belief(path) is None


def catalogue(folder, **columns):
    items, sids = folder / "items.parquet", folder / "sids.parquet"
    pq.write_table(pa.table(columns), items)
    rows = [list("abcd"), [[7, 0], [7, 1], [2, 0], [3, 3]], [[0.0, 0.0]] * 4, [0.0] * 4]
    write_versioned(sids, pa.table(rows, schema=SCHEMA), version="v")
    return {"items": items, "sids": sids}


TITLES = ["Acme Running Shoes", "Bolt Trail Shoe, red", "Acme Tea Kettle", "12"]
PATHS = [["Shoes", "Running"], ["Shoes", "Trail"], None, ["Shoes", "Running"]]


@pytest.mark.parametrize(
    "columns, language, kind, types",
    [
        pytest.param(
            {"category": PATHS, "title": TITLES}, "en", "category", [0, 1, -1, 0], id="category"
        ),
        pytest.param({"title": TITLES}, "en", "title", [0, 0, 1, -1], id="title"),
        pytest.param(
            {"category": pa.array([[], None, [], []], pa.list_(pa.string())), "title": TITLES},
            "en",
            "title",
            [0, 0, 1, -1],
            id="empty categories",
        ),
        pytest.param({"title": TITLES}, "de", "first code", [7, 7, 2, 3], id="another language"),
        pytest.param({"title": TITLES}, None, "first code", [7, 7, 2, 3], id="no language"),
    ],
)
def test_types_are_categories_else_head_nouns_else_first_codes(
    tmp_path, columns, language, kind, types
):
    paths = catalogue(tmp_path, **columns)
    found_kind, found = belief.read_types(paths["items"], sids=paths["sids"], language=language)
    assert (found_kind, found.tolist()) == (kind, types)


def test_a_run_is_measured_with_the_types_of_relevant_test_items(tmp_path):
    layout = Layout(model_dir=tmp_path)
    for stage in ("prepare", "quantize", "generate"):
        layout.stage(stage).mkdir()
    paths = catalogue(tmp_path, title=TITLES, category=PATHS)
    paths["items"].rename(layout.items)
    paths["sids"].rename(layout.sids)
    queries = pa.table({"query": [f"query {n}" for n in range(7)], "segment": SEGMENT})
    pq.write_table(queries, layout.queries)
    pairs = [
        *((1, 0, True, "test"), (1, 1, True, "test"), (1, 3, True, "test")),
        *((2, 0, True, "test"), (2, 1, False, "test"), (2, 1, True, "head")),
        *((4, 2, True, "test"), (6, 1, True, "test")),
    ]
    names = ("query_index", "item_index", "relevant", "split")
    pq.write_table(pa.table(dict(zip(names, zip(*pairs), strict=True))), layout.judgements)
    write_hits(layout.hits, BELIEF)
    older = layout.for_rung("unsupervised")
    older.stage("generate").mkdir(parents=True)
    pq.write_table(pa.table({"query_index": [1], "ranks": [[1, 2]]}), older.hits)
    found = belief.measure({"full": layout, "unsupervised": older}, language="en")
    assert found["types"] == "category" and set(found["rungs"]) == {"full"}
    # Query 1: two paths of three items; 2 and 6: one; 4: an item without a category.
    by_types = found["rungs"]["full"]["level_1"]["types"]
    assert {count: of["queries"] for count, of in by_types.items()} == {"1": 2, "2": 1}
    assert by_types["1"]["value"] == pytest.approx((0.5 + 0.75) / 2)
    assert belief.measure({"unsupervised": older}, language="en") == {}
