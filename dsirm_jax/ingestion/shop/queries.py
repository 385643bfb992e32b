"""The queries of the simulated shop, and the graded, clicked judgements of its items for them."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from dsirm_jax.data.schema import RAW_JUDGEMENTS, Chunk
from dsirm_jax.ingestion.shop import catalogue, draws
from dsirm_jax.ingestion.shop.catalogue import Facet, ProductType
from dsirm_jax.ingestion.shop.items import TRUTH, Stock, facet_values, item_ids, type_shares
from dsirm_jax.io.checks import check_number
from dsirm_jax.io.errors import InputError

_GRADES = "E", "S", "C", "I"
_E, _S, _C, _I = range(4)
_GRADE_SHARES = np.array([0.5, 0.25, 0.05, 0.2])
_GRADE_THRESHOLDS = np.cumsum(_GRADE_SHARES)
_CLICK_RATES = np.array([0.20, 0.08, 0.05, 0.02])
_PURCHASE_RATES = np.array([0.15, 0.06, 0.08, 0.02])

_BATCH_QUERIES = 32  # a batch shares a pool of candidates

# By what an item's type is to the query's: how many families of each kind a pool takes, how readily
# its items are chosen to be judged, and their grade with no, one or more attributes off.
_POOL_FAMILIES = (96, 24, 16, 48, 48, 64)
_READINESS = np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.5])
_GRADE_TABLE = np.array([[_E, _S, _I], [_S, _I, _I], [_C, _C, _C], *[[_I, _I, _I]] * 3])

_JUDGEMENT_SCHEMA = pa.schema(
    [
        *(f for f in RAW_JUDGEMENTS if f.name not in ("weight", "split", "position", "judged_at")),
        ("truth_label", pa.string()),
        *TRUTH.items(),
    ]
)

Block = tuple[int, int, int]
"""Number of a product type, of a block among the type's, and of the queries in it."""


@functools.cache
def _related(type_: ProductType) -> tuple[np.ndarray, ...]:
    """Returns the numbers of the types that are something to queries for a type, by relation."""
    row = catalogue.relations()[type_.number]
    return tuple(np.flatnonzero(row == relation) for relation in range(len(_POOL_FAMILIES)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pool:
    items: np.ndarray  # [row]
    values: np.ndarray  # [attribute, row]
    relation: np.ndarray  # [row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Query:
    text: str
    type_: ProductType
    constraints: dict[int, int]  # column of the attribute to value
    truth: list[str]
    frequency: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attributes:
    """How many attributes, beside its type, a query asks for; of those for a model it is the brand.

    Attributes:
      shares: of the queries that ask for none, one, two and so on, as far as items have them.
      without: share of the queries for an item without a feature that ask for just that.

    Raises:
      InputError: a share is not in [0, 1], or shares do not add up to 1.
    """

    shares: tuple[float, ...] = (0.16, 0.38, 0.32, 0.14)
    without: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.shares, str) or not len(self.shares):
            raise InputError(
                f"gin binding Attributes.shares is {self.shares!r}; bind a tuple of shares"
            )
        for share in self.shares:
            check_number("Attributes.shares", share, least=0, most=1)
        if abs(sum(self.shares) - 1) > 1e-6:
            raise InputError(
                f"gin binding Attributes.shares is {self.shares!r}, which add up to "
                f"{sum(self.shares):g}; bind shares that add up to 1"
            )
        object.__setattr__(self, "shares", tuple(self.shares))
        check_number("Attributes.without", self.without, least=0, most=1)

    @functools.cached_property
    def thresholds(self) -> tuple[float, ...]:
        """Of a uniform draw: as many attributes are asked for as lie below it."""
        return tuple(round(end, 9) for end in itertools.accumulate(self.shares))[:-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryLog:
    """All queries of a shop, in blocks of one product type, each made alone.

    Attributes:
      stock: the items.
      queries: see `SimulatedShop`.
      judgements_per_query: see `SimulatedShop`.
      label_noise: see `SimulatedShop`.
      attributes: see `SimulatedShop`.
    """

    stock: Stock
    queries: int
    judgements_per_query: int
    label_noise: float
    attributes: Attributes = dataclasses.field(default_factory=Attributes)

    def parts(self, *, block_queries: int, part_queries: int) -> list[list[Block]]:
        """Returns the blocks of each part.

        Args:
          block_queries: most queries of a block.
          part_queries: fewest queries of a part, but for the last.
        """
        shares = np.where(np.diff(self.stock.starts) > 0, type_shares(self.stock.seed), 0)
        counts = draws.apportion(self.queries, shares)
        parts: list[list[Block]] = []
        queries = part_queries
        for type_, count in enumerate(counts.tolist()):
            for block, start in enumerate(range(0, count, block_queries)):
                if queries >= part_queries:
                    parts.append([])
                    queries = 0
                size = min(block_queries, count - start)
                parts[-1].append((type_, block, size))
                queries += size
        return parts

    def chunks(self, part: int, blocks: Sequence[Block], *, chunk_queries: int) -> Iterator[Chunk]:
        """Yields the judgements of one part, block by block.

        Args:
          part: its number.
          blocks: see `parts`.
          chunk_queries: most queries of a chunk.
        """
        judgements = itertools.chain.from_iterable(itertools.starmap(self._block, blocks))
        first = 1
        while batch := list(itertools.islice(judgements, chunk_queries)):
            table = self._table(*zip(*batch))
            yield Chunk(table=table, file=f"simulated judgements {part + 1}", first_row=first)
            first += table.num_rows

    def _block(self, number: int, block: int, queries: int) -> Iterator[tuple[_Query, np.ndarray]]:
        """Yields the queries of one block with their judgements."""
        type_ = catalogue.product_types()[number]
        seen: set[str] = set()
        for batch in range(queries):  # at least one new query a batch, or there are no more
            counter = (0, block, batch, number)
            random = draws.generator(self.stock.seed, draws.QUERY_STREAM, counter)
            pool = self._pool(type_, random)
            anchors = random.choice(np.flatnonzero(pool.relation == catalogue.OWN), _BATCH_QUERIES)
            for anchor in anchors:
                if len(seen) == queries:
                    return
                query = self._query(type_, pool.values[:, anchor].tolist(), random)
                if query.text not in seen:
                    seen.add(query.text)
                    yield query, self._judgements(query, pool, random)

    def _pool(self, type_: ProductType, random: np.random.Generator) -> _Pool:
        """Draws items that queries for a type may be judged against."""
        families = np.concatenate(
            [
                self._families(numbers, most, random)
                for numbers, most in zip(_related(type_), _POOL_FAMILIES, strict=True)
            ]
        )
        items, types, values = self.stock.attributes(np.sort(families))
        relation = catalogue.relations()[type_.number, types]
        return _Pool(items=items, values=values, relation=relation)

    def _families(self, numbers: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
        """Draws families of the types of these numbers, or returns all when they are few."""
        starts = self.stock.starts[numbers]
        sizes = self.stock.starts[numbers + 1] - starts
        total, ends = int(sizes.sum()), np.cumsum(sizes)
        taken = np.arange(total) if total <= most else np.unique(random.integers(0, total, most))
        block = np.searchsorted(ends, taken, "right")
        return starts[block] + taken - (ends - sizes)[block]

    def _query(
        self, type_: ProductType, values: Sequence[int], random: np.random.Generator
    ) -> _Query:
        """Returns a query for some of the attributes of an anchor item, in a customer's words."""
        draw = random.random
        name = draws.pick(type_.names, draw())
        present = facet_values(type_, values)
        if draw() < 0.07:
            model = self.stock.model_name(type_, *values[:2])
            facets = present[:1]
            words = [catalogue.brand_name(values[0]), model] + ([name] if draw() < 0.3 else [])
        else:
            model = None
            count = min(len(present), bisect.bisect_left(self.attributes.thresholds, draw()))
            facets = [present[i] for i in random.choice(len(present), count, replace=False)]
            if self.attributes.without and draw() < self.attributes.without:
                facets = _with_negation(facets, present)
            words = [name]
            for facet, value in facets:
                wording = draws.pick(facet.phrases[value].in_queries, draw())
                after = draw() < 0.5 or facet.follows
                words.insert(len(words) if after else 0, wording)
            if draw() < 0.06:
                words.insert(0, draws.pick(catalogue.words()["query filler"], draw()))
        text = " ".join(words).lower()
        if draw() < 0.04:
            text = draws.misspell(text, draw())
        constraints = {facet.column: value for facet, value in facets}
        truth = [facet.phrases[value].fact for facet, value in facets]
        if model:
            constraints[catalogue.attribute_columns()[catalogue.MODEL]] = values[1]
            truth.append(f"{catalogue.MODEL}={model}")
        shares = type_shares(self.stock.seed)
        popularity = shares[type_.number] / shares.mean()
        frequency = 2000 * popularity * 6.0 ** -len(constraints) * random.lognormal(0, 1)
        return _Query(
            text=text,
            type_=type_,
            constraints=constraints,
            truth=truth,
            frequency=float(np.ceil(frequency)),
        )

    def _graded_rows(
        self, query: _Query, pool: _Pool, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chooses rows of a pool to be judged for a query, and gives their true grades."""
        constraints = np.array([*query.constraints.values()], np.int64)
        values = pool.values[[*query.constraints]]
        matches = np.count_nonzero(values == constraints[:, None], axis=0)
        grades = _GRADE_TABLE[pool.relation, np.minimum(len(constraints) - matches, 2)]
        # Hard ones first: they share a wanted attribute, or a word of the type's name.
        readiness = _READINESS[pool.relation] * (1 + 8 * matches)
        order = np.argsort(random.exponential(size=len(grades)) / readiness)
        ordered = grades[order]
        rows = [order[ordered == grade] for grade in range(len(_GRADES))]
        total = max(random.poisson(self.judgements_per_query), 2)
        total = min(total, len(rows[_E]) / _GRADE_SHARES[_E])
        # A type without complements has no C, which the others make up for.
        shares = _GRADE_SHARES * [1, 1, 1.8 if len(rows[_C]) else 0, 1]
        counts = np.floor(total * shares + random.random(len(_GRADES))).astype(int)
        counts[_E] = max(counts[_E], 1)
        sample = np.concatenate([r[:count] for r, count in zip(rows, counts, strict=True)])
        return sample, grades[sample]

    def _judgements(self, query: _Query, pool: _Pool, random: np.random.Generator) -> np.ndarray:
        """Judges some items of a pool for a query.

        Returns:
          int64 `[column, judgement]`: number of the item, true grade, label, impressions, clicks
          and purchases.
        """
        rows, grades = self._graded_rows(query, pool, random)
        noisy = random.random(len(grades)) < self.label_noise
        drawn = np.searchsorted(_GRADE_THRESHOLDS, random.random(len(grades)), "right")
        labels = np.where(noisy, drawn, grades)
        # An engine of middling quality has ranked them; attention falls with the position.
        position = np.argsort(np.argsort(grades + random.normal(0, 1.5, len(grades))))
        impressions = random.poisson(query.frequency * 0.85**position)
        clicks = random.binomial(impressions, _CLICK_RATES[grades])
        purchases = random.binomial(clicks, _PURCHASE_RATES[grades])
        return np.stack([pool.items[rows], grades, labels, impressions, clicks, purchases])

    def _table(self, queries: Sequence[_Query], judgements: Sequence[np.ndarray]) -> pa.Table:
        query = np.repeat(np.arange(len(queries)), [block.shape[1] for block in judgements])
        item, grade, label, *counts = np.concatenate(judgements, axis=1)
        grades = pa.array(_GRADES)
        columns = {
            "query": pa.array([query.text for query in queries]).take(query),
            "item_id": item_ids(item, seed=self.stock.seed),
            "label": grades.take(label),
            **dict(zip(("impressions", "clicks", "purchases"), counts, strict=True)),
            "query_frequency": pa.array([query.frequency for query in queries]).take(query),
            "truth_label": grades.take(grade),
            "truth_type": pa.array([query.type_.names[0] for query in queries]).take(query),
            "truth_attributes": pa.array(
                [query.truth for query in queries], TRUTH["truth_attributes"]
            ).take(query),
        }
        return pa.table(columns, schema=_JUDGEMENT_SCHEMA)


def _with_negation(
    facets: list[tuple[Facet, int]], present: Sequence[tuple[Facet, int]]
) -> list[tuple[Facet, int]]:
    """Returns the attributes with what the anchor is without, if anything, in place of the last."""
    negation = (catalogue.FEATURE, catalogue.WITHOUT)
    missing = [one for one in present if (one[0].name, one[1]) == negation]
    if not missing or missing[0] in facets:
        return facets
    return [*facets[: max(len(facets) - 1, 0)], *missing]
