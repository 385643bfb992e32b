"""What a scorer answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

AnswerSource = Literal["cached", "live", "fallback"]
CACHED: AnswerSource = "cached"
LIVE: AnswerSource = "live"
FALLBACK: AnswerSource = "fallback"
SOURCES = (CACHED, LIVE, FALLBACK)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """Items as judged for a query.

    Attributes:
      probabilities: of being relevant, calibrated, float32 `[item]`; NaN for an item that is not
        in the catalogue.
      dense_only: likewise, of the head without SIDs; NaN everywhere where the run has none.
      source: "cached", "live", or "fallback": then `probabilities` are those of `dense_only`.
      features: float32 `[item, feature]` in the order of `Scorer.schema`; NaN where not known.
      unknown: ids that are not in the catalogue, as given.
    """

    probabilities: Float[np.ndarray, " item"]
    dense_only: Float[np.ndarray, " item"]
    source: AnswerSource
    features: Float[np.ndarray, "item feature"]
    unknown: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuerySids:
    """The most probable SIDs of a query, best first.

    Attributes:
      sids: int32 `[beam, level]`; each is some item's.
      probabilities: float32 `[beam]`.
      source: "cached", "live", or "fallback": then the generator was late and there is no SID.
    """

    sids: Int[np.ndarray, "beam level"]
    probabilities: Float[np.ndarray, " beam"]
    source: AnswerSource


class Candidate(NamedTuple):
    """An item found for a query.

    Attributes:
      item_id: its id.
      score: what it was found by, see `Retrieved`.
    """

    item_id: str
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Items for a query, each list best first, equal ones in the order of their ids.

    A search engine that `dsirm export --to=ENGINE` filled finds the same by `terms` and `vector`.

    Attributes:
      by_sid: items below a prefix of the query's SIDs, by the sum of the weights of their prefixes.
      by_vector: the nearest items, at most 50, by cosine.
      by_both: those of these two lists, by the sum of their scores there.
      terms: weight of each prefix of the query's SIDs, `12`, `12.87`, …, see `terms_of`.
      vector: of the query, float32.
      source: of the SIDs; "fallback": the generator was late, and `by_sid` is empty.
    """

    by_sid: tuple[Candidate, ...]
    by_vector: tuple[Candidate, ...]
    by_both: tuple[Candidate, ...]
    terms: Mapping[str, float]
    vector: Float[np.ndarray, " dim"]
    source: AnswerSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """An item of the catalogue.

    Attributes:
      item_id: its id.
      title: its title.
      sid: its codes.
      attributes: what else is known, by the name of the column.
    """

    item_id: str
    title: str
    sid: tuple[int, ...]
    attributes: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Branch:
    """A code that goes on from a prefix.

    Attributes:
      code: the next code.
      items: number of items below it.
      category: the end of their commonest category path; None where none is known.
      purity: its share of those whose path is known.
      titles: of some of these items, evenly spread over the SIDs below.
    """

    code: int
    items: int
    category: str | None
    purity: float | None
    titles: tuple[str, ...]
