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


def test_without_a_comparison_there_is_no_verdict():
    assert verdict(metrics(0, 0, 0) | {"lifts": {}}) is None


def test_for_losses_less_is_better():
    less, more = {"low": -2, "high": -1}, {"low": 1, "high": 2}
    assert [outcome(less, "log_loss"), outcome(more, "log_loss")] == ["better", "worse"]
    assert [outcome(less, "roc_auc"), outcome(more, "roc_auc")] == ["worse", "better"]


def test_rungs_without_a_name_of_their_own_are_readable():
    assert rung_name("without_category") == "without category"
