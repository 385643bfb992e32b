from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import evaluate
from dsirm_jax.relevance.metrics_table import metrics_table
from dsirm_jax.relevance.pairs import JudgedPairs

QUERIES, PER_QUERY = 120, 5
LIFTS = (("full", "no_sid"),)
ORDERS = list(itertools.permutations(("no_sid", "dsi", "tiger", "full")))


@pytest.fixture(scope="module")
def pairs():
    generator = np.random.default_rng(0)
    rows = QUERIES * PER_QUERY
    query = np.repeat(np.arange(QUERIES), PER_QUERY)
    relevant = generator.random(rows) < 0.4
    return JudgedPairs(
        query_index=query,
        identity=query,
        relevant=relevant,
        gain=relevant * 1.0,
        label=np.where(relevant, "E", generator.choice(list("SCI"), rows)),
        segments={"head": query % 2 == 0, "torso": query % 2 == 1, "tail": query < 0},
    )


@pytest.fixture(scope="module")
def scores(pairs):
    noise = np.random.default_rng(1).random(len(pairs.relevant))
    return {
        "no_sid": noise,
        "unsupervised": 0.9 * noise + 0.1 * pairs.relevant,
        "full": 0.7 * noise + 0.3 * pairs.relevant,
    }


@pytest.fixture(scope="module")
def metrics(pairs, scores):
    lifts = evaluate.lifts_between(scores)
    return evaluate.evaluate(pairs=pairs, scores=scores, lifts=lifts, resamples=200, seed=0)


def test_values_are_those_of_scikit_learn_and_lifts_their_differences(pairs, scores, metrics):
    values = {rung: roc_auc_score(pairs.relevant, of) for rung, of in scores.items()}
    for rung, value in values.items():
        found = metrics["rungs"][rung]["roc_auc"]
        assert found["value"] == pytest.approx(value)
        assert found["low"] < value < found["high"]
    lift = metrics["lifts"]["full"]
    assert (lift["rung"], lift["over"]) == ("full", "no_sid")
    assert lift["roc_auc"]["value"] == pytest.approx(values["full"] - values["no_sid"])
    assert lift["roc_auc"]["relative"] == pytest.approx(values["full"] / values["no_sid"] - 1)
    over = metrics["lifts"]["full over unsupervised"]
    assert over["roc_auc"]["value"] == pytest.approx(values["full"] - values["unsupervised"])


def test_a_lift_is_made_up_of_what_lies_within_queries_and_between_them(pairs, scores, metrics):
    same = pairs.query_index[:, None] == pairs.query_index
    compared = pairs.relevant[:, None] & ~pairs.relevant
    share = np.mean(same[compared])
    assert metrics["share_within"]["value"] == pytest.approx(share)
    values = {}
    for rung, of in scores.items():
        wins = (of[:, None] > of) + 0.5 * (of[:, None] == of)
        for kind, where in (("auc_within", compared & same), ("auc_between", compared & ~same)):
            values[rung, kind] = wins[where].mean()
            found = metrics["rungs"][rung][kind]
            assert found["value"] == pytest.approx(values[rung, kind])
            assert found["low"] < found["value"] < found["high"]
    lift = metrics["lifts"]["full"]
    for kind in ("auc_within", "auc_between"):
        gained = values["full", kind] - values["no_sid", kind]
        assert lift[kind]["value"] == pytest.approx(gained)
        assert lift[kind]["low"] < gained < lift[kind]["high"]
    parts = share * lift["auc_within"]["value"] + (1 - share) * lift["auc_between"]["value"]
    assert parts == pytest.approx(lift["roc_auc"]["value"], abs=1e-12)


def test_a_lift_tells_what_so_many_queries_can_find(metrics):
    lift = metrics["lifts"]["full"]
    error = lift["power"]["standard_error"]
    # Of a lift whose resamples are about normal.
    width = lift["roc_auc"]["high"] - lift["roc_auc"]["low"]
    assert error == pytest.approx(width / (2 * 1.96), rel=0.1)
    assert lift["power"]["detectable"] == pytest.approx(2.8016 * error, rel=1e-4)
    wanted = 0.0154 * metrics["rungs"]["no_sid"]["roc_auc"]["value"]
    needed = QUERIES * (lift["power"]["detectable"] / wanted) ** 2
    assert lift["power"]["target_queries"] == pytest.approx(needed, abs=1)
    assert f"{lift['power']['target_queries']:,} queries" in metrics_table(metrics)


def test_ece_stands_beside_its_floor(pairs, scores, metrics):
    true = pairs.relevant * 1.0  # certain, and right: there is nothing to expect
    found = evaluate.evaluate(pairs=pairs, scores={"full": true}, lifts=(), resamples=5)
    assert found["rungs"]["full"]["ece"] == {"value": 0, "low": 0, "high": 0, "floor": 0}
    for rung, values in scores.items():
        floor = metrics["rungs"][rung]["ece"]["floor"]
        # Each of 15 bins has about 40 pairs, whose mean is off by .4 of its deviation, or less.
        assert 0.02 < floor < 0.8 * np.sqrt(np.mean(values * (1 - values)) / 40)
    [row] = [line.split() for line in metrics_table(metrics).splitlines() if "ece floor" in line]
    floors = [metrics["rungs"][rung]["ece"]["floor"] for rung in scores]
    assert row == ["ece", "floor", *(f"{floor:.4f}" for floor in floors)]


def test_the_interval_of_ece_reaches_to_zero_where_probabilities_are_true(pairs):
    generator = np.random.default_rng(3)
    told = generator.random(len(pairs.relevant))
    true = dataclasses.replace(pairs, relevant=generator.random(len(told)) < told)
    scores = {"no_sid": told, "full": np.clip(told + 0.3, 0, 1)}
    found = evaluate.evaluate(pairs=true, scores=scores, lifts=(("full", "no_sid"),), resamples=200)
    assert set(found["rungs"]["full"]) == set(evaluate.PAIR_METRICS)
    ece = found["rungs"]["no_sid"]["ece"]
    assert ece["low"] == 0 < ece["value"] <= ece["high"]
    off = found["rungs"]["full"]["ece"]
    assert 0.1 < off["low"] < off["value"] < off["high"]
    lift = found["lifts"]["full"]["ece"]
    assert 0 < lift["low"] < lift["value"] < lift["high"]


def test_the_tasks_of_esci_are_measured_where_labels_and_head_tell(pairs, scores):
    sure = np.eye(4)[[list("ESCI").index(label) for label in pairs.label]]
    blind = np.tile([0.0, 0.0, 0.0, 1.0], (len(sure), 1))
    given = {"scores": scores, "lifts": (("full", "no_sid"),), "resamples": 20}
    found = evaluate.evaluate(pairs=pairs, **given, grades={"full": sure, "no_sid": blind})
    tasks = found["esci"]
    assert tasks["rungs"]["full"]["task_2_micro_f1"]["value"] == 1
    assert tasks["rungs"]["full"]["task_3_macro_f1"]["value"] == 1
    irrelevant = np.mean(pairs.label == "I")
    assert tasks["rungs"]["no_sid"]["task_2_micro_f1"]["value"] == pytest.approx(irrelevant)
    assert set(tasks["rungs"]["unsupervised"]) == {"task_1_ndcg"}
    lift = tasks["lifts"]["full"]["task_2_micro_f1"]
    assert lift["value"] == pytest.approx(1 - irrelevant) and lift["low"] > 0
    script = evaluate.evaluate(pairs=pairs, **given, esci_gains="script")["esci"]
    assert (tasks["gains"], script["gains"]) == ("paper", "script")
    of_both = [each["rungs"]["full"]["task_1_ndcg"]["value"] for each in (tasks, script)]
    assert of_both[0] != of_both[1]
    unknown = dataclasses.replace(pairs, label=np.where(pairs.relevant, None, pairs.label))
    assert "esci" not in evaluate.evaluate(pairs=unknown, **given)


def test_intervals_of_lifts_are_paired(metrics):
    lift = metrics["lifts"]["unsupervised"]["roc_auc"]
    alone = metrics["rungs"]["unsupervised"]["roc_auc"]
    assert lift["high"] - lift["low"] < 0.5 * (alone["high"] - alone["low"])


def test_a_rung_has_no_lift_over_its_twin(pairs, scores):
    twins = {"no_sid": scores["no_sid"], "full": scores["no_sid"]}
    found = evaluate.evaluate(pairs=pairs, scores=twins, lifts=LIFTS, resamples=20)
    lift = found["lifts"]["full"]
    assert all(lift[name] == dict.fromkeys(lift[name], 0) for name in evaluate.PAIR_METRICS)


def test_segments_hold_their_own_queries_and_absent_ones_are_left_out(pairs, scores, metrics):
    assert metrics["segments"].keys() == {"head", "torso"}
    head = pairs.segments["head"]
    assert metrics["segments"]["head"]["queries"] == QUERIES // 2
    assert metrics["segments"]["head"]["rungs"]["full"]["roc_auc"]["value"] == pytest.approx(
        roc_auc_score(pairs.relevant[head], scores["full"][head])
    )


def test_every_rung_is_compared_with_no_sid_and_with_full():
    assert evaluate.lifts_between(["no_sid", "dsi", "full"]) == [
        *(("dsi", "no_sid"), ("full", "no_sid")),
        ("full", "dsi"),
    ]
    assert evaluate.lifts_between(["dsi", "full"]) == [("full", "dsi")]


def test_the_keys_of_lifts_do_not_depend_on_the_order_of_rungs(pairs, scores):
    def keys(rungs):
        found = evaluate.evaluate(
            pairs=pairs,
            scores={rung: scores["full"] for rung in rungs},
            lifts=evaluate.lifts_between(rungs),
            resamples=2,
        )
        return {(lift["rung"], lift["over"]): key for key, lift in found["lifts"].items()}

    expected = {
        ("dsi", "no_sid"): "dsi",
        ("tiger", "no_sid"): "tiger",
        ("full", "no_sid"): "full",
        ("full", "dsi"): "full over dsi",
        ("full", "tiger"): "full over tiger",
    }
    assert all(keys(rungs) == expected for rungs in ORDERS)
    alone = {("full", "dsi"): "full over dsi", ("full", "tiger"): "full over tiger"}
    assert all(keys(rungs[1:]) == alone for rungs in ORDERS if rungs[0] == "no_sid")
    lifts = [("full", "dsi"), ("full", "no_sid"), ("full_on_seen", "full")]
    rungs = ("no_sid", "dsi", "full", "full_on_seen")
    assert list(evaluate.lift_keys(lifts, rungs=rungs).values()) == [
        *("full over dsi", "full", "full_on_seen")
    ]


def test_metrics_of_several_seeds_are_averaged_on_the_same_resamples(pairs, scores, metrics):
    of_seeds = np.stack([scores["no_sid"], scores["unsupervised"], scores["full"]])
    found = evaluate.evaluate(
        pairs=pairs,
        scores={"no_sid": scores["no_sid"], "full": of_seeds},
        lifts=LIFTS,
        resamples=200,
    )
    values = [metrics["rungs"][rung]["roc_auc"]["value"] for rung in scores]
    assert found["rungs"]["full"]["roc_auc"]["value"] == pytest.approx(np.mean(values))
    # With the baseline among them, the mean lift is that of the others over three.
    lift = found["lifts"]["full"]["roc_auc"]["value"]
    assert lift == pytest.approx((values[1] + values[2] - 2 * values[0]) / 3)


def test_with_many_rungs_the_table_has_a_row_each(pairs, scores):
    ladder = {"no_sid": scores["no_sid"], "full": scores["full"]}
    ladder |= {f"rung_{number}": scores["unsupervised"] for number in range(4)}
    found = evaluate.evaluate(
        pairs=pairs, scores=ladder, lifts=evaluate.lifts_between(ladder), resamples=50
    )
    lines = metrics_table(found).splitlines()
    assert [line.split()[0] for line in lines[2:8]] == list(ladder)
    values = {rung: found["rungs"][rung]["roc_auc"]["value"] for rung in ladder}
    row = next(line for line in lines if line.startswith("rung_2"))
    assert f"{values['rung_2']:.4f} [" in row
    assert f"{values['rung_2'] - values['no_sid']:+.4f} [" in row
    assert f"{values['full'] - values['rung_2']:+.4f} [" in row
    [start] = [line for line in lines if line.startswith("full − each")]
    assert start.split()[-4:] == ["auc_between", "auc_within", "per_query_auc", "ndcg@10"]
    [row] = [line for line in lines[lines.index(start) :] if line.startswith("rung_2")]
    kinds = [found["lifts"]["full over rung_2"][kind]["value"] for kind in start.split()[-4:]]
    assert all(f"{value:+.4f} [" in row for value in kinds)
    assert max(map(len, lines)) <= 160


def test_a_metric_that_is_undefined_is_left_out_and_the_rest_is_json(pairs, scores):
    only_relevant = pairs.where(pairs.relevant)
    kept = {rung: of[pairs.relevant] for rung, of in scores.items()}
    found = evaluate.evaluate(pairs=only_relevant, scores=kept, lifts=LIFTS, resamples=20)
    assert "roc_auc" not in found["rungs"]["full"]
    assert "log_loss" in found["rungs"]["full"]
    json.dumps(found, allow_nan=False)
    assert "–" in metrics_table(found)


def test_the_table_shows_values_and_marks_lifts_without_zero(metrics):
    text = metrics_table(json.loads(json.dumps(metrics)))
    value = metrics["rungs"]["full"]["roc_auc"]["value"]
    assert f"{value:.4f} [" in text
    assert "full − no_sid" in text
    [roc] = [line for line in text.splitlines()[8:] if line.startswith("roc_auc")]
    assert roc.count("*") == 3
    assert "120 test queries, 600 pairs" in text
    assert max(map(len, text.splitlines())) <= 110


def test_no_test_pairs_is_an_error(pairs, scores):
    nothing = np.zeros(len(pairs.relevant), bool)
    with pytest.raises(InputError, match="split test"):
        evaluate.evaluate(pairs=pairs.where(nothing), scores={"full": np.empty(0)}, lifts=LIFTS)


def spelt_thrice(pairs):
    """Returns pairs of which every query has two more spellings, with the same items and labels."""
    columns = {
        field.name: np.tile(getattr(pairs, field.name), 3)
        for field in dataclasses.fields(pairs)
        if field.name not in ("query_index", "segments")
    }
    queries = np.concatenate([pairs.query_index + number * QUERIES for number in range(3)])
    return JudgedPairs(
        query_index=queries,
        segments={name: np.tile(members, 3) for name, members in pairs.segments.items()},
        **columns,
    )


def test_further_spellings_of_queries_make_no_interval_narrower(pairs, scores):
    arguments = {"lifts": LIFTS, "resamples": 1000, "seed": 0}
    once = evaluate.evaluate(pairs=pairs, scores=scores, **arguments)
    thrice = spelt_thrice(pairs)
    spelt = {rung: np.tile(of, 3) for rung, of in scores.items()}
    found = evaluate.evaluate(pairs=thrice, scores=spelt, **arguments)
    assert (found["queries"], found["pairs"]) == (3 * QUERIES, 3 * len(pairs.relevant))
    # An identity is drawn as its only spelling was: the same resamples, each pair three times.
    for name in evaluate.PAIR_METRICS:
        for path in (("rungs", "full"), ("rungs", "no_sid"), ("lifts", "full")):
            expected, measured = (of[path[0]][path[1]][name] for of in (once, found))
            for end in ("value", "low", "high"):
                assert measured[end] == pytest.approx(expected[end], abs=1e-9), (name, path, end)
    # What counting spellings as queries would say.
    apart = dataclasses.replace(thrice, identity=thrice.query_index)
    narrow = evaluate.evaluate(pairs=apart, scores=spelt, **arguments)["rungs"]["full"]["roc_auc"]
    wide = found["rungs"]["full"]["roc_auc"]
    share = (narrow["high"] - narrow["low"]) / (wide["high"] - wide["low"])
    assert share == pytest.approx(3**-0.5, rel=0.15)


def test_intervals_of_spellings_that_are_judged_alike_hold_the_truth_as_often():
    """Coins: the truth is .5. Spellings of a query have its labels, and scores that are alike."""
    held = {"identity": 0, "query": 0}
    rounds = 60
    for seed in range(rounds):
        random = np.random.default_rng(seed)
        identity = np.repeat(np.arange(30), 15)
        labels = np.tile(random.integers(2, size=(30, 1, 5)), (1, 3, 1)).ravel() > 0
        scores = np.tile(random.random((30, 1, 5)), (1, 3, 1)).ravel()
        scores = 0.9 * scores + 0.1 * random.random(450)
        for name, numbers in (("identity", identity), ("query", np.repeat(np.arange(90), 5))):
            judged = JudgedPairs(
                query_index=np.repeat(np.arange(90), 5),
                identity=numbers,
                relevant=labels,
                gain=labels * 1.0,
                label=np.full(450, None),
                segments={},
            )
            found = evaluate.evaluate(
                pairs=judged, scores={"full": scores}, lifts=(), resamples=100
            )["rungs"]["full"]["roc_auc"]
            held[name] += found["low"] <= 0.5 <= found["high"]
    assert held["identity"] >= 0.85 * rounds  # of 95 %, in few rounds
    assert held["query"] < 0.85 * rounds


def test_hits_by_hand():
    queries = np.array([1, 2, 5, 6])
    full = np.array([[1, 2], [1, 0], [7, 7], [0, 0]])
    other = np.array([[1, 50], [2, 0], [0, 0], [0, 0]])
    segment = np.array(["tail"] * 5 + ["head"] * 2)
    found = evaluate.evaluate_hits(
        {"full": (queries, full), "unsupervised": (queries, other)},
        segment=segment,
        identity=np.arange(7),
        lifts=(("full", "no_sid"), ("full", "unsupervised")),
        resamples=300,
    )
    assert found["queries"] == 4
    values = {
        (rung, level, k): of["value"]
        for rung, levels in found["rungs"].items()
        for level, hits in levels.items()
        for k, of in hits.items()
    }
    assert [values["full", "level_1", f"hit@{k}"] for k in (1, 5, 10, 100)] == [
        0.5,
        0.5,
        0.75,
        0.75,
    ]
    assert [values["full", "level_2", f"hit@{k}"] for k in (1, 5, 10, 100)] == [0, 0.25, 0.5, 0.5]
    assert values["unsupervised", "level_2", "hit@10"] == 0
    assert values["unsupervised", "level_2", "hit@100"] == 0.25
    lift = found["lifts"]["full over unsupervised"]
    assert (lift["rung"], lift["over"]) == ("full", "unsupervised")
    # The difference is 1 for query 2 and 0 for the others: at least 0 in every resample.
    assert lift["level_1"]["hit@1"]["value"] == 0.25
    assert lift["level_1"]["hit@1"]["low"] == 0 and lift["level_1"]["hit@1"]["high"] <= 1
    assert found["segments"]["head"]["queries"] == found["segments"]["tail"]["queries"] == 2
    assert found["segments"]["head"]["rungs"]["full"]["level_1"]["hit@10"]["value"] == 0.5
    assert "torso" not in found["segments"]


def test_without_test_queries_there_are_no_hits():
    nothing = (np.empty(0, np.int64), np.empty((0, 3), np.int32))
    found = evaluate.evaluate_hits(
        {"full": nothing}, segment=np.array(["tail"]), identity=np.array([0]), lifts=LIFTS
    )
    assert found == {}
