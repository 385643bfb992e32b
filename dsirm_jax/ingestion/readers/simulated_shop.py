"""A seeded shop of any size with known truth: catalogue, queries, graded judgements and clicks.

The generative model (this project's own; its statistics follow Amazon ESCI's, arXiv 2206.06588):

* **Catalogue.** A fixed tree: department > group > product type (shop/catalogue.py). Types have
  Zipf shares and own consecutive blocks of item numbers; four consecutive items form a family that
  shares brand and model. An item's further attributes (colour, size, storage, with or without a
  feature, which model it fits ...) are drawn one by one, popular values first.
* **Titles** are noisy: synonyms, any order, attributes left out, filler and mentions of other
  types, typos; some never name their type, only brand and model. `category` is missing for one
  item in ten.
* **Queries** start from an anchor item and ask for its type and 0 to 3 of its attributes
  (`Attributes.shares`; the fewer, the more frequent), in words that partly differ from the
  titles': each list of synonyms ends in a wording that only queries use. A few name a model and no
  type.
* **Grades.** E: every wanted attribute matches. S: same type with one attribute off, or the
  next type of its group with none off. C: an accessory of the wanted type, or what the wanted
  accessory is for. I: anything else; judged are mostly hard ones: more attributes off, a type that
  shares a word or the group, the same brand or colour elsewhere. Labels are grades with noise.
  Clicks and purchases are binomial in the impressions, at rates set by the true grade.

Item i owns the counters of a Philox stream at i, so that any worker makes any row. Queries come in
blocks of one type, each with counters of its own, and a batch of them looks for its candidates in a
bounded number of families, taken from the type's own and from those of related types: the cost of a
judgement does not depend on the number of items. Memory holds one chunk and the query texts of one
block, which make its queries distinct; another block of the type may ask the same, as logs do.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import pyarrow as pa

from dsirm_jax.data.schema import Source
from dsirm_jax.ingestion.shop.items import LARGEST_SHOP, TRUTH, Stock
from dsirm_jax.ingestion.shop.queries import Attributes, QueryLog
from dsirm_jax.io.checks import check_number, check_whole
from dsirm_jax.io.records import LATER


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedShop:
    """A reader of a shop that does not exist.

    Attributes:
      items: number of items, up to about 1e8.
      queries: number of queries, distinct among the first 16,384 of each product type, the next
        16,384, and so on; fewer are made when the items allow no more.
      judgements_per_query: most judgements of a query, on average; a query that few items match
        has fewer, so that the grades keep their shares.
      label_noise: share of the labels that are drawn anew, whatever the truth.
      seed: everything is a function of it.
      attributes: how many attributes queries ask for.
    """

    items: int = 4000
    queries: int = 2000
    judgements_per_query: int = 16
    label_noise: float = 0.05
    seed: int = 0
    attributes: Attributes = dataclasses.field(default=Attributes(), metadata=LATER)

    def __post_init__(self) -> None:
        for name in ("items", "queries"):
            check_whole(f"SimulatedShop.{name}", getattr(self, name), least=1)
        check_number("SimulatedShop.items", self.items, most=LARGEST_SHOP)
        check_number(
            "SimulatedShop.judgements_per_query", self.judgements_per_query, above=0, below=math.inf
        )
        check_number("SimulatedShop.label_noise", self.label_noise, least=0, most=1)
        check_whole("SimulatedShop.seed", self.seed, least=0)
        check_number("SimulatedShop.seed", self.seed, below=2**64)

    def files(self) -> list[str]:
        """Returns no files: nothing is read."""
        return []

    def read(
        self,
        *,
        chunk_items: int = 4096,
        part_items: int = 65_536,
        chunk_queries: int = 512,
        part_queries: int = 8192,
        block_queries: int = 16_384,
    ) -> Source:
        """Returns the catalogue and the judgements, made while they are read.

        The columns `truth_type` (first name of the product type) and `truth_attributes`
        (`name=value`, usual wording) tell what an item is, or what a query wants; `truth_label` is
        the grade before noise.

        Args:
          chunk_items: most items of a chunk, a multiple of `FAMILY_ITEMS`.
          part_items: most items of a part, likewise.
          chunk_queries: most queries of a chunk.
          part_queries: fewest queries of a part, but for the last.
          block_queries: most queries of a block; alone of the sizes it changes the rows.
        """
        stock, log = self._stock, self._log
        parts = log.parts(block_queries=block_queries, part_queries=part_queries)
        return Source(
            items=[
                functools.partial(
                    stock.chunks,
                    start,
                    min(start + part_items, self.items),
                    chunk_items=chunk_items,
                )
                for start in range(0, self.items, part_items)
            ],
            judgements=[
                functools.partial(log.chunks, number, blocks, chunk_queries=chunk_queries)
                for number, blocks in enumerate(parts)
            ],
            extras=pa.schema(TRUTH),
        )

    @property
    def _stock(self) -> Stock:
        return Stock(items=self.items, seed=self.seed)

    @property
    def _log(self) -> QueryLog:
        return QueryLog(
            stock=self._stock,
            queries=self.queries,
            judgements_per_query=self.judgements_per_query,
            label_noise=self.label_noise,
            attributes=self.attributes,
        )
