"""How probable it is that a place of the result list is looked at, as a share of the best place.

The position-based model: a click at place k is a look at k and a relevant item, P(click) =
P(look | k) P(relevant | query, item). Source: Richardson, Dominowska and Ragno 2007 (the
examination hypothesis); Craswell, Zoeter, Taylor and Ramsey 2008, "An experimental comparison of
click position-bias models".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import ibis
from ibis import _

from dsirm_jax.io.checks import check_holds, check_number, check_whole

MOST_POSITIONS = 100
"""Places beyond this one are looked at as often as it is."""

_UNITS = 2**20
"""Click rates are added up in whole units, whose sums are exact in any order."""

_MOST_WEIGHT = 2**20


@runtime_checkable
class Propensities(Protocol):
    """A kind of propensities: a frozen dataclass of its settings, chosen in gin by its class."""

    def of(self, judgements: ibis.Table) -> Sequence[float]:
        """Returns the propensity of each place from 1, above 0 to 1; the last holds beyond it.

        Args:
          judgements: checked ones: query, item_id, position, impressions and clicks.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Propensities that were measured, say by swapping places at random.

    Attributes:
      values: of the places from 1, the largest of them at most 1.
    """

    values: Sequence[float]

    def __post_init__(self) -> None:
        several = isinstance(self.values, Sequence) and not isinstance(self.values, str)
        check_holds(
            several and len(self.values) > 0,
            binding="propensities.Given.values",
            value=self.values,
            remedy="a tuple of numbers above 0, of at most 1, such as (1.0, 0.6, 0.4)",
        )
        for place, value in enumerate(self.values):
            check_number(f"propensities.Given.values[{place}]", value, above=0, most=1)

    def of(self, judgements: ibis.Table) -> Sequence[float]:
        del judgements
        return list(self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Power:
    """Propensities 1 / place**eta.

    Source: Joachims, Swaminathan and Schnabel 2017, "Unbiased learning-to-rank with biased
    feedback" (arXiv 1608.04468), whose simulated clicks follow it.

    Attributes:
      eta: 0 is no bias, 1 the harmonic law.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        check_number("propensities.Power.eta", self.eta, least=0, most=4)

    def of(self, judgements: ibis.Table) -> Sequence[float]:
        del judgements
        return [place**-self.eta for place in range(1, MOST_POSITIONS + 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Harvested:
    """Propensities from pairs that the log shows at two neighbouring places.

    Of pairs that were shown at both k and k + 1, the click rates at both differ by the places
    alone, whatever the pairs: the ratio of the propensities is that of the sums of their rates.
    Source: Agarwal, Zaitsev, Wang, Li, Najork and Joachims 2019, "Estimating position bias
    without intrusive interventions" (arXiv 1806.03555), the adjacent-chain estimator; here a pair
    weighs as many impressions as it has at the rarer of the two places, at most 2**20, which leaves
    the ratio unbiased and gives little room to rates of few impressions.

    Attributes:
      least_clicks: fewest clicks, at each of the two places, that a ratio is taken of; from the
        first place that has fewer, all have the propensity of the one before.
    """

    least_clicks: int = 100

    def __post_init__(self) -> None:
        check_whole("propensities.Harvested.least_clicks", self.least_clicks, least=1)

    def of(self, judgements: ibis.Table) -> Sequence[float]:
        shown = judgements.filter(_.position.notnull(), _.impressions > 0)
        shown = shown.filter(_.position <= MOST_POSITIONS)
        shown = shown.group_by("query", "item_id", "position").agg(
            impressions=_.impressions.sum(), clicks=_.clicks.sum().fill_null(0)
        )
        after = shown.select(
            "query",
            "item_id",
            position=_.position - 1,
            impressions_after=_.impressions,
            clicks_after=_.clicks,
        )
        both = shown.join(after, ["query", "item_id", "position"])
        rarer = ibis.least(both.impressions, both.impressions_after, _MOST_WEIGHT).cast("float64")
        both = both.select(
            "position",
            "clicks",
            "clicks_after",
            rate=_weighed(both.clicks, both.impressions, rarer),
            rate_after=_weighed(both.clicks_after, both.impressions_after, rarer),
        )
        sums = both.group_by("position").agg(
            clicks=_.clicks.sum(),
            clicks_after=_.clicks_after.sum(),
            rate=_.rate.sum(),
            rate_after=_.rate_after.sum(),
        )
        of_place = {row["position"]: row for row in sums.to_pyarrow().to_pylist()}
        values = [1.0]
        for place in range(1, MOST_POSITIONS):
            row = of_place.get(place)
            if not row or min(row["clicks"], row["clicks_after"]) < self.least_clicks:
                break
            values.append(values[-1] * int(row["rate_after"]) / int(row["rate"]))
        largest = max(values)
        return [value / largest for value in values]


def _weighed(clicks: ibis.Value, impressions: ibis.Value, weight: ibis.Value) -> ibis.Value:
    """Returns the click rate times a weight, in whole units."""
    rate = clicks.cast("float64") / impressions.cast("float64")
    return (ibis.least(rate, 1.0) * weight * _UNITS).floor().cast("int64")


def is_propensities(value: object) -> bool:
    """Whether a value is propensities, and not their class."""
    return isinstance(value, Propensities) and not isinstance(value, type)
