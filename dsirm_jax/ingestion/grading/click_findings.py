"""What there is to say of pairs whose labels follow from counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion.grading.clicks import ClickModel, Steps
from dsirm_jax.ingestion.grading.labels import Labels
from dsirm_jax.io.errors import InputError

COLUMNS = "JUDGEMENT_COLUMNS"


def check_counted(
    totals: Mapping[str, int], behaviour: Mapping[str, Any], *, labels: Labels, clicks: ClickModel
) -> None:
    """Checks that counts give labels where there are no others.

    Args:
      totals: numbers of pairs: all, counted (of which there are counts alone), unshown of these.
      behaviour: number of counted pairs with `too_few_impressions`.
      labels: those that exist.
      clicks: the rule.

    Raises:
      InputError: they give none; the message says why, and what to do.
    """
    if not any(clicks.steps(labels)):
        raise InputError(
            f"judgements: {totals['counted']} pairs have counts and no label, and nothing says "
            "what grade a click stands for; bind clicks.ClickModel.click_rates, such as {3: 0.5}"
        )
    if behaviour["too_few_impressions"] < totals["pairs"]:
        return
    if totals["unshown"] == totals["counted"]:
        raise InputError(
            f"judgements: {totals['counted']} pairs have clicks or purchases, none has impressions "
            "or a label: no rate follows from clicks alone, and where rows of what was not clicked "
            f"are missing, there is no irrelevant judgement; map a column to impressions in "
            f"{COLUMNS}, with rows of what was shown and not clicked, or give labels"
        )
    raise InputError(
        f"judgements: all {totals['counted']} pairs have fewer impressions than "
        f"clicks.ClickModel.least_impressions ({clicks.least_impressions}) and no label; lower it, "
        "or take a longer log"
    )


def click_findings(
    totals: Mapping[str, int], behaviour: Mapping[str, Any], *, labels: Labels, clicks: ClickModel
) -> list[Finding]:
    """Returns what there is to say of counted pairs.

    Args:
      totals: numbers of pairs, as in `check_counted`; placed: counted ones with a position;
        overclicked: those with more clicks than impressions.
      behaviour: `pairs` that have labels by it, with `too_few_impressions`, and the table's rates.
      labels: those that exist.
      clicks: the rule.
    """
    pairs, counted = totals["pairs"], totals["counted"]
    rates = {"clicks": behaviour["click_rate"], "purchases": behaviour["purchase_rate"]}
    units = clicks.units(click_rate=rates["clicks"], purchase_rate=rates["purchases"])
    rules = [
        f"{name!r} from {rate:.3g} {kind} an impression (of all pairs {mean:.3g})"
        for (kind, mean), steps, unit in zip(
            rates.items(), clicks.steps(labels), units, strict=True
        )
        if mean
        for name, rate in _named(steps, labels, unit=unit)
    ]
    findings = []
    if behaviour["pairs"]:
        text = (
            f"{behaviour['pairs']} of {pairs} pairs have counts and no label, which follows from "
            f"the lower end of what their rates may be: {'; '.join(rules) or 'none is above 0'}; "
            "prepare.run.clicks = @clicks.ClickModel() takes other rules"
        )
        findings.append(Finding(table="judgements", text=text, is_fault=False))
    faults = {
        f"{behaviour['too_few_impressions']} of {pairs} pairs have no label and fewer than "
        f"{clicks.least_impressions} impressions (clicks.ClickModel.least_impressions), "
        f"{totals['unshown']} of them none, and are left out": behaviour["too_few_impressions"],
        f"{totals['overclicked']} of {counted} counted pairs have more clicks than impressions, "
        "which count as one an impression": totals["overclicked"],
        f"{totals['placed']} of {counted} counted pairs have the position that they were shown at, "
        "which is not used; bind clicks.ClickModel.propensities, such as @propensities.Power() or "
        "@propensities.Harvested()": totals["placed"] and not clicks.propensities,
        "clicks.ClickModel.propensities is bound and no counted pair has a position: all are "
        f"looked at alike; map a column to position in {COLUMNS}": (
            clicks.propensities and not totals["placed"]
        ),
    }
    findings += [Finding(table="judgements", text=text) for text, is_so in faults.items() if is_so]
    return findings


def _named(steps: Steps, labels: Labels, *, unit: float) -> list[tuple[str, float]]:
    rows = labels.rows([grade for grade, _rate in steps])
    name = dict(zip(rows["grade"].to_pylist(), rows["label"].to_pylist()))
    return [(name[grade], rate * unit) for grade, rate in steps]
