"""Labels from counted behaviour: by the lower end of what a rate, corrected for the place, may be.

A pair's *looks* are its impressions, each times the propensity of its place; its click rate is
clicks / looks, the maximum-likelihood estimate of the position-based model for rates that are
small (clicks over expected clicks: Zhang and Jones 2007, "Comparing click logs and editorial labels
for training query rewriting"). Purchases likewise.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import ibis

from dsirm_jax.ingestion.grading.labels import Labels
from dsirm_jax.ingestion.grading.propensities import MOST_POSITIONS, Propensities, is_propensities
from dsirm_jax.io.checks import check_holds, check_number, check_whole
from dsirm_jax.io.errors import InputError

DEFAULT_RATE = 0.5
"""Share of the table's own rate from which a pair counts as clicked, or bought."""

CLICKS_A_PURCHASE = 50
"""A purchase says no more than so many clicks do: where purchases are rarer than that, one of them
in thousands of impressions would be a multiple of the table's rate."""

_LOOK_UNITS = 2**12
_MOST_IMPRESSIONS = 2**41
"""Looks are added up in whole units, whose sums are exact in any order, and fit into 64 bits."""

Steps = Sequence[tuple[float, float]]
"""Grades, the lowest first, each with the rate that it takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClickModel:
    """How a pair without a label gets one from its impressions, clicks and purchases.

    The lower end of a rate is the lower end of Wilson's interval (Wilson 1927, "Probable inference,
    the law of succession, and statistical inference") of clicks / impressions, divided by the mean
    propensity of the impressions; `prior_impressions` at the table's own rate are added to
    both before, as a Beta prior does (Agresti and Coull 1998). A pair has the highest label whose
    rate its lower end reaches, by clicks or by purchases, else the lowest; without a click or
    purchase of its own, always the lowest. A pair with fewer than `least_impressions` has none.

    Attributes:
      click_rates: labels, each with the click rate that it takes. None: 0.5 for the label of the
        second highest gain, or of the highest where there are but two.
      purchase_rates: likewise with purchases. None: 0.5 for the label of the highest gain.
      relative: rates are shares of that of the whole table, clicks (purchases) / looks; that of
        purchases is at least a 50th of that of clicks.
      confidence: one-sided, of the lower end, .5 to 1; .5 is the rate itself.
      prior_impressions: 0 is no prior.
      least_impressions: of a pair that gets a label.
      propensities: of the places, where the judgements have the column `position`; such as
        @propensities.Power(). None: all places are looked at alike.
    """

    click_rates: Mapping[Any, float] | None = None
    purchase_rates: Mapping[Any, float] | None = None
    relative: bool = True
    confidence: float = 0.95
    prior_impressions: float = 10.0
    least_impressions: int = 10
    propensities: Propensities | None = None

    def __post_init__(self) -> None:
        for name in ("click_rates", "purchase_rates"):
            rates = getattr(self, name)
            check_holds(
                rates is None or isinstance(rates, Mapping),
                binding=f"clicks.ClickModel.{name}",
                value=rates,
                remedy="labels, each with the rate that it takes, such as {'1': 0.5}",
            )
            for label, rate in (rates or {}).items():
                check_number(f"clicks.ClickModel.{name}[{label!r}]", rate, above=0, below=1e6)
        check_number("clicks.ClickModel.confidence", self.confidence, least=0.5, below=1)
        check_number(
            "clicks.ClickModel.prior_impressions", self.prior_impressions, least=0, most=1e9
        )
        check_whole("clicks.ClickModel.least_impressions", self.least_impressions, least=1)
        check_holds(
            self.propensities is None or is_propensities(self.propensities),
            binding="clicks.ClickModel.propensities",
            value=self.propensities,
            remedy="propensities, such as @propensities.Power()",
        )

    def steps(self, labels: Labels) -> tuple[Steps, Steps]:
        """Returns the rates of clicks and of purchases that grades take.

        Raises:
          InputError: a label is none of `labels`, or a higher one takes a lower rate.
        """
        ordered = sorted(labels.names, key=lambda name: labels.grade(name) or 0.0)
        clicked = ordered[-1:] if len(ordered) == 2 else ordered[-2:-1]
        defaults = {"click_rates": clicked, "purchase_rates": ordered[-1:]}
        by_clicks, by_purchases = (
            _steps(name, getattr(self, name), labels, default=dict.fromkeys(best, DEFAULT_RATE))
            for name, best in defaults.items()
        )
        return by_clicks, by_purchases

    def looks(self, judgements: ibis.Table, values: Sequence[float] | None) -> ibis.Table:
        """Adds the column `looks`, in units of 1 / 4096.

        Args:
          judgements: checked ones.
          values: propensities of the places from 1; None: all are 1.
        """
        impressions = ibis.least(judgements.impressions.fill_null(0), _MOST_IMPRESSIONS)
        if values is None:
            return judgements.mutate(looks=impressions * _LOOK_UNITS)
        units = [
            {
                "_place": place,
                "units": max(round(_LOOK_UNITS * values[min(place, len(values)) - 1]), 1),
            }
            for place in range(1, MOST_POSITIONS + 1)
        ]
        # What has no place is looked at as the first one is.
        place = ibis.least(judgements.position.fill_null(0), MOST_POSITIONS)
        rows = judgements.mutate(_place=place, looks=impressions)
        table = ibis.memtable(units).cast({"_place": "int64", "units": "int64"})
        rows = rows.left_join(table, "_place")
        return rows.mutate(looks=rows.looks * rows.units.fill_null(_LOOK_UNITS))

    def graded(
        self, pairs: ibis.Table, *, labels: Labels, click_rate: float, purchase_rate: float
    ) -> ibis.Table:
        """Adds `behaviour`, a grade or null, and `evidence`, the count that decided.

        Args:
          pairs: impressions, clicks, purchases and looks of each.
          labels: those that exist.
          click_rate: of the whole table.
          purchase_rate: likewise.
        """
        counts = {
            "clicked": (pairs.clicks, click_rate),
            "bought": (pairs.purchases, purchase_rate),
        }
        units = self.units(click_rate=click_rate, purchase_rate=purchase_rate)
        grades = {
            name: self._grade(
                self._lower_end(pairs, count, rate=rate) / unit,
                count > 0,
                steps,
                lowest=labels.lowest,
            )
            for (name, (count, rate)), steps, unit in zip(
                counts.items(), self.steps(labels), units, strict=True
            )
        }
        pairs = pairs.mutate(**grades)
        is_enough = pairs.impressions >= self.least_impressions
        by_purchase = (pairs.bought > labels.lowest) & (pairs.bought >= pairs.clicked)
        evidence = ibis.cases(
            (by_purchase, pairs.purchases),
            (pairs.clicked > labels.lowest, pairs.clicks),
            else_=pairs.impressions,
        )
        return pairs.mutate(
            behaviour=ibis.ifelse(is_enough, ibis.greatest(pairs.clicked, pairs.bought), None),
            evidence=evidence,
        )

    def units(self, *, click_rate: float, purchase_rate: float) -> tuple[float, float]:
        """Returns what rates of clicks and of purchases are multiples of.

        Args:
          click_rate: of the whole table.
          purchase_rate: likewise.
        """
        if not self.relative:
            return 1.0, 1.0
        # Where nothing was clicked or bought, no pair has a count that would be compared.
        return click_rate or 1.0, max(purchase_rate, click_rate / CLICKS_A_PURCHASE) or 1.0

    def _grade(
        self, rate: ibis.Value, has_own: ibis.Value, steps: Steps, *, lowest: float
    ) -> ibis.Value:
        """Returns the highest grade whose rate is reached."""
        reached = [(has_own & (rate >= step), grade) for grade, step in reversed(steps)]
        grade = ibis.cases(*reached, else_=lowest) if reached else ibis.literal(lowest)
        return grade.cast("float64")

    def _lower_end(self, pairs: ibis.Table, counts: ibis.Value, *, rate: float) -> ibis.Value:
        """Returns the lower end of each pair's rate, whose prior is the rate of the table."""
        z = statistics.NormalDist().inv_cdf(self.confidence)
        impressions = ibis.greatest(pairs.impressions, 1).cast("float64")
        share = ibis.greatest(pairs.looks, 1).cast("float64") / _LOOK_UNITS / impressions
        number = impressions + self.prior_impressions
        counted = ibis.least(counts.cast("float64"), impressions)
        counted = counted + self.prior_impressions * rate * share
        mean = ibis.least(counted / number, 1.0)
        spread = (mean * (1.0 - mean) / number + z * z / (4.0 * number * number)).sqrt()
        least = (mean + z * z / (2.0 * number) - z * spread) / (1.0 + z * z / number)
        return least / share


def overall_rate(counts: int, looks: int) -> float:
    """Returns counts a look, at most 1.

    Args:
      counts: of all pairs that have impressions.
      looks: of the same, in the units of `ClickModel.looks`.
    """
    return min(counts * _LOOK_UNITS / looks, 1.0) if looks else 0.0


def _steps(
    binding: str, rates: Mapping[Any, float] | None, labels: Labels, *, default: Mapping[str, float]
) -> Steps:
    rates = default if rates is None else rates
    steps = []
    for label, rate in rates.items():
        grade = labels.grade(str(label))
        if grade is None:
            raise InputError(
                f"gin binding clicks.ClickModel.{binding} has {label!r}, which is no label; bind "
                f"some of {labels.expected()}"
            )
        steps.append((grade, float(rate)))
    steps.sort()
    needed = [rate for _grade, rate in steps]
    check_holds(
        needed == sorted(needed),
        binding=f"clicks.ClickModel.{binding}",
        value=rates,
        remedy="higher rates for higher labels",
    )
    return steps
