import pytest

from dsirm_jax.report.verdict import outcome, rung_name, verdict


def metrics(low, value, high):
    lift = {"value": value, "low": low, "high": high, "relative": value / 0.8}
    return {
        "queries": 1234,
        "rungs": {
            "no_sid": {"roc_auc": {"value": 0.8}},
            "full": {"roc_auc": {"value": 0.8 + value}},
        },
        "lifts": {"full": {"rung": "full", "over": "no_sid", "roc_auc": lift}},
    }


def test_a_gain_is_called_a_gain():
    found = verdict(metrics(0.01, 0.02, 0.03))
    assert found.outcome == "better"
    assert found.headline == "SIDs raise ROC-AUC by +0.0200 [+0.0100, +0.0300] over no SID."
    assert found.details[0].startswith("From 0.8000 to 0.8200, +2.5 % relative, on 1,234 test")


def test_a_loss_is_called_a_loss():
    found = verdict(metrics(-0.03, -0.02, -0.01))
    assert found.outcome == "worse"
    assert "lower ROC-AUC: −0.0200 [−0.0300, −0.0100]" in found.headline


@pytest.mark.parametrize(
    "interval",
    [(-0.01, 0.02, 0.05), (0.0, 0.02, 0.05), (-0.05, -0.02, 0.0)],
    ids=["within", "lower end", "upper end"],
)
def test_an_interval_that_holds_zero_is_no_difference(interval):
    found = verdict(metrics(*interval))
    assert found.outcome == "unclear"
    assert "no measurable difference" in found.headline


def test_other_comparisons_of_the_full_model_are_told_too():
    found = metrics(0.01, 0.02, 0.03)
    found["lifts"]["full over unsupervised"] = {
        "rung": "full",
        "over": "unsupervised",
        "roc_auc": {"value": -0.002, "low": -0.006, "high": 0.002, "relative": 0.0},
    }
    assert verdict(found).details[1] == (
        "The full model cannot be told apart from unsupervised SIDs: −0.0020 [−0.0060, +0.0020]."
    )


def of_kinds(between, within, *, ndcg=(-0.01, 0.0, 0.01)):
    """Metrics with two controls, of which `votes` is the stronger; full over it by kind of gain."""
    found = metrics(0.01, 0.02, 0.03)
    about = [dict(zip(("low", "value", "high"), of, strict=True)) for of in (between, within, ndcg)]
    over = {"value": 0.005, "low": 0.001, "high": 0.009, "relative": 0.006}
    found["rungs"]["votes"] = {"roc_auc": {"value": 0.815}}
    found["lifts"]["full over votes"] = {
        "rung": "full",
        "over": "votes",
        "roc_auc": over,
        **dict(zip(("auc_between", "auc_within", "ndcg@10"), about, strict=True)),
        "power": {"standard_error": 0.002, "detectable": 0.0056, "target_queries": 245},
    }
    share = {"value": 0.01, "low": 0.008, "high": 0.012}
    return found | {"controls": ["no_sid", "votes"], "share_within": share}


def test_the_verdict_is_on_the_strongest_control():
    found = verdict(of_kinds((0.001, 0.005, 0.009), (-0.01, 0.0, 0.01)))
    assert found.headline == (
        "SIDs raise ROC-AUC by +0.0050 [+0.0010, +0.0090] over votes, "
        "the strongest of 2 controls without codes."
    )
    assert found.details[0].startswith("From 0.8150 to 0.8200, +0.6 % relative")
    assert found.details[1:] == (
        "The full model tells good queries from bad; it does not rank their items better: between "
        "queries (99 % of all comparisons) +0.0050 [+0.0010, +0.0090], within a query +0.0000 "
        "[−0.0100, +0.0100], nDCG@10 +0.0000 [−0.0100, +0.0100].",
        "Detectable lift in ROC-AUC ± 0.0056 (80 % power); +1.54 % relative needs 245 queries.",
        "The full model does better than no SID: +0.0200 [+0.0100, +0.0300].",
    )


UP, FLAT, DOWN = (0.01, 0.02, 0.03), (-0.01, 0.0, 0.01), (-0.03, -0.02, -0.01)


@pytest.mark.parametrize(
    ("between", "within", "ndcg", "told"),
    [
        pytest.param(UP, UP, FLAT, "bad; it ranks items better within a query:", id="both"),
        pytest.param(UP, FLAT, UP, "bad; it ranks items better within a query:", id="nDCG"),
        pytest.param(FLAT, UP, UP, "does not tell good queries from bad better; it ranks", id="in"),
        pytest.param(
            FLAT,
            FLAT,
            FLAT,
            "does not tell good queries from bad better; it does not rank their items better:",
            id="neither",
        ),
        pytest.param(UP, DOWN, FLAT, "it ranks items worse within a query:", id="worse"),
        pytest.param(UP, DOWN, UP, "it does not rank their items better:", id="at odds"),
        pytest.param(DOWN, FLAT, FLAT, "tells good queries from bad less well; it", id="less"),
    ],
)
def test_gains_are_told_apart(between, within, ndcg, told):
    assert told in verdict(of_kinds(between, within, ndcg=ndcg)).details[1]


def test_of_a_long_ladder_controls_alone_are_told():
    found = of_kinds(UP, UP)
    for rung in ("dsi", "tiger", "paper", "beam_1"):
        lift = {"value": 0.0, "low": -1.0, "high": 1.0, "relative": 0.0}
        found["lifts"][f"full over {rung}"] = {"rung": "full", "over": rung, "roc_auc": lift}
    assert verdict(found).details[3:] == (
        "The full model does better than no SID: +0.0200 [+0.0100, +0.0300].",
    )


def test_without_a_comparison_there_is_no_verdict():
    assert verdict(metrics(0, 0, 0) | {"lifts": {}}) is None
    assert verdict(metrics(0, 0, 0) | {"controls": []}) is None


def test_for_losses_less_is_better():
    less, more = {"low": -2, "high": -1}, {"low": 1, "high": 2}
    assert [outcome(less, "log_loss"), outcome(more, "log_loss")] == ["better", "worse"]
    assert [outcome(less, "roc_auc"), outcome(more, "roc_auc")] == ["worse", "better"]


def test_rungs_without_a_name_of_their_own_are_readable():
    assert rung_name("without_category") == "without category"
