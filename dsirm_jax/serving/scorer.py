"""Scores pairs and finds SIDs from a bundle: no gin, no TensorFlow, no training code.

What is known of a head query lies in the bundle, so that its pairs take array work alone. Any other
query goes to the generator, together with others that wait; where it is late, the answer is that of
the head without SIDs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

CACHED, LIVE, FALLBACK = SOURCES = ("cached", "live", "fallback")
Source = Literal["cached", "live", "fallback"]


class Overloaded(Exception):
    """More queries wait for the generator than may; the caller had better try again later."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a scorer serves.

    Attributes:
      batch: most queries that the generator reads at once.
      waiting: most queries that wait for it; a further one is refused.
      deadline: seconds that a caller waits for the generator where it does not say.
      warm: batch sizes compiled when the bundle is opened; others are when they first occur.
      most_items: most items of one call.
      most_characters: of a query.
    """

    batch: int = 32
    waiting: int = 256
    deadline: float = 1.0
    warm: tuple[int, ...] = (1,)
    most_items: int = 1024
    most_characters: int = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """A column of the features of a pair.

    Attributes:
      name: of the column.
      group: that it belongs to.
      about: what it is, in one line.
    """

    name: str
    group: str
    about: str


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
    source: Source
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
    source: Source


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
      category: the commonest one among them; None where none is known.
      purity: its share of them.
      titles: of some of these items.
    """

    code: int
    items: int
    category: str | None
    purity: float | None
    titles: tuple[str, ...]


class Scorer:
    """A bundle, open.

    Threads may share one. Close it, or use it as a context manager.

    Attributes:
      schema: the columns of the features of a pair, in order.
      sizes: codes per level.
    """

    schema: tuple[Feature, ...]
    sizes: tuple[int, ...]

    @classmethod
    def open(cls, path: str | Path, *, settings: Settings | None = None) -> Scorer:
        """Opens a bundle.

        Args:
          path: the folder that `dsirm export` wrote.
          settings: how to serve.

        Raises:
          InputError: there is no bundle, or a file of it is not what it was.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Ends the thread that serves; callers that wait get the answer without SIDs."""
        raise NotImplementedError

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def score(
        self, query: str, item_ids: Sequence[str], *, deadline: float | None = None
    ) -> Scored:
        """Returns how probable it is that items are relevant to a query.

        Args:
          query: its text.
          item_ids: of the catalogue; one that is not there is named in `unknown`.
          deadline: seconds to wait for the generator; `Settings.deadline` when not given.

        Raises:
          InputError: the query is empty or too long, or there are too many items.
          Overloaded: too many queries wait for the generator.
        """
        raise NotImplementedError

    def query_sids(self, query: str, *, deadline: float | None = None) -> QuerySids:
        """Returns the most probable SIDs of a query; arguments and errors as `score` has them."""
        raise NotImplementedError

    def items(self, sid_prefix: Sequence[int], *, most: int = 50) -> list[Item]:
        """Returns items whose SID starts with some codes.

        Args:
          sid_prefix: codes of the first levels; empty for all items.
          most: items returned, the first ones of the catalogue.

        Raises:
          InputError: no item has this prefix.
        """
        raise NotImplementedError

    def children(self, sid_prefix: Sequence[int]) -> list[Branch]:
        """Returns the codes that go on from a prefix, in ascending order; none from a whole SID.

        Raises:
          InputError: no item has this prefix.
        """
        raise NotImplementedError

    def candidates(self, query: str, *, most: int = 50) -> list[str]:
        """Returns ids of items to show for a query, each once.

        First those of its SIDs, best SID first; then the nearest by cosine.

        Raises:
          InputError: as in `score`.
          Overloaded: as in `score`.
        """
        raise NotImplementedError

    def statistics(self) -> Mapping[str, float]:
        """Returns counts since the bundle was opened, and how many queries wait now.

        `cached`, `live`, `fallback`: answers by their source; `overloaded`: calls refused;
        `batches` and `batched`: what the generator ran, and the queries in it; `waiting`: queries
        in the queue; `items` and `cached_queries`: what the bundle holds.
        """
        raise NotImplementedError
