"""A seeded shop of any size with known truth: catalogue, queries, graded judgements and clicks.

The generative model (this project's own; its statistics follow Amazon ESCI's, arXiv 2206.06588):

* **Catalogue.** A fixed tree: department > group > product type (shop_catalogue.py). Types have
  Zipf shares and own consecutive blocks of item numbers; four consecutive items form a family that
  shares brand and model. An item's further attributes (colour, size, storage, with or without a
  feature, which model it fits ...) are drawn one by one, popular values first.
* **Titles** are noisy: synonyms, any order, attributes left out, filler and mentions of other
  types, typos; some never name their type, only brand and model. `category` is missing for one
  item in ten.
* **Queries** start from an anchor item and ask for its type and 0 to 3 of its attributes (the
  fewer, the more frequent), in words that partly differ from the titles': each list of synonyms
  ends in a wording that only queries use. A few name a model and no type.
* **Grades.** E: every attribute asked for matches. S: same type with one attribute off, or the
  next type of its group with none off. C: an accessory of the asked type, or what the asked
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

import bisect
import dataclasses
import functools
import itertools
import string
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from dsirm_jax.data import shop_catalogue as catalogue
from dsirm_jax.data.schema import RAW_ITEMS, RAW_JUDGEMENTS, Chunk, Source
from dsirm_jax.data.shop_catalogue import Facet, ProductType

_FAMILY = 4  # items of one brand and model

_BREAKS = ", ", ", ", " - ", " | ", " "

_GRADES = "E", "S", "C", "I"
_E, _S, _C, _I = range(4)
_GRADE_SHARES = np.array([0.5, 0.25, 0.05, 0.2])
_GRADE_THRESHOLDS = np.cumsum(_GRADE_SHARES)
_CLICK_RATES = np.array([0.20, 0.08, 0.05, 0.02])
_PURCHASE_RATES = np.array([0.15, 0.06, 0.08, 0.02])
_ASKED_THRESHOLDS = 0.16, 0.54, 0.86  # of the number of attributes that a query asks for

# Philox streams.
_LAYOUT_DRAWS, _FAMILY_DRAWS, _ATTRIBUTE_DRAWS, _TEXT_DRAWS, _QUERY_DRAWS = range(5)
_FAMILY_WIDTH, _ATTRIBUTE_WIDTH, _TEXT_WIDTH = 4, 12, 64  # draws a row, multiples of four
_CHUNK_ITEMS, _PART_ITEMS = 4096, 65_536
_BATCH_QUERIES, _CHUNK_QUERIES = 32, 512  # a batch shares a pool of candidates
_BLOCK_QUERIES, _PART_QUERIES = 16_384, 8192  # at most a block, at least a part (but for the last)

# By what an item's type is to the query's: how many families of each kind a pool takes, how readily
# its items are chosen to be judged, and their grade with no, one or more attributes off.
_POOL_FAMILIES = (96, 24, 16, 48, 48, 64)
_READINESS = np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.5])
_GRADE_OF = np.array([[_E, _S, _I], [_S, _I, _I], [_C, _C, _C], *[[_I, _I, _I]] * 3])

_TRUTH = {"truth_type": pa.string(), "truth_attributes": pa.list_(pa.string())}
_ITEM_SCHEMA = pa.schema([*RAW_ITEMS, *_TRUTH.items()])
_JUDGEMENT_SCHEMA = pa.schema(
    [
        *(f for f in RAW_JUDGEMENTS if f.name not in ("weight", "split")),
        ("truth_label", pa.string()),
        *_TRUTH.items(),
    ]
)


@functools.lru_cache(maxsize=8)
def _type_shares(seed: int) -> np.ndarray:
    """Returns the shares of the product types, `[type]`.

    Types have Zipf shares, and so have departments, in orders that the seed decides.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, _LAYOUT_DRAWS]))
    types = catalogue.product_types()
    shares = 1 / (random.permutation(len(types)) + 5.0) ** 0.9
    names, departments = np.unique([type_.department for type_ in types], return_inverse=True)
    return shares / (random.permutation(len(names)) + 1.0)[departments]


@functools.lru_cache(maxsize=8)
def _family_starts(items: int, seed: int) -> np.ndarray:
    """Returns the first family of each type, then the number of families. `[type + 1]`."""
    families = -(-items // _FAMILY)
    return np.concatenate([[0], np.cumsum(_apportion(families, _type_shares(seed)))])


@functools.cache
def _related(type_: ProductType) -> tuple[np.ndarray, ...]:
    """Returns the numbers of the types that are something to queries for a type, by relation."""
    row = catalogue.relations()[type_.number]
    return tuple(np.flatnonzero(row == relation) for relation in range(len(_POOL_FAMILIES)))


def _apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Splits `total` into whole numbers close to the shares (largest remainder)."""
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def _pick(choices: Sequence[str], uniform: float) -> str:
    return choices[int(uniform * len(choices))]


def _misspelt(text: str, uniform: float) -> str:
    """Drops, doubles or swaps letters of the longest word, where the draw says."""
    word = max(text.split(), key=len)
    at, how = divmod(int(uniform * 3 * (len(word) - 1)), 3)
    typo = ("", word[at] * 2, word[at : at + 2][::-1])[how]
    return text.replace(word, word[:at] + typo + word[at + (2 if how == 2 else 1) :], 1)


def _present(type_: ProductType, values: Sequence[int]) -> list[tuple[Facet, int]]:
    """Returns the attributes that an item has, each with the number of its value, brand first."""
    return [
        (facet, values[facet.column])
        for facet in type_.facets
        if values[facet.column] != catalogue.ABSENT
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pool:
    items: np.ndarray  # [row]
    values: np.ndarray  # [attribute, row]
    relation: np.ndarray  # [row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Query:
    text: str
    type_: ProductType
    asked: dict[int, int]  # column of the attribute to value
    truth: list[str]
    frequency: float


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
    """

    items: int = 4000
    queries: int = 2000
    judgements_per_query: int = 16
    label_noise: float = 0.05
    seed: int = 0

    def files(self) -> list[str]:
        """Returns no files: nothing is read."""
        return []

    def read(self) -> Source:
        """Returns the catalogue and the judgements, made while they are read.

        The columns `truth_type` (first name of the product type) and `truth_attributes`
        (`name=value`, usual wording) tell what an item is, or what a query asks for;
        `truth_label` is the grade before noise.
        """
        return Source(
            items=[
                functools.partial(self._item_chunks, start, min(start + _PART_ITEMS, self.items))
                for start in range(0, self.items, _PART_ITEMS)
            ],
            judgements=[
                functools.partial(self._judgement_chunks, number, blocks)
                for number, blocks in enumerate(self._blocks())
            ],
            extras=pa.schema(_TRUTH),
        )

    @property
    def _starts(self) -> np.ndarray:
        return _family_starts(self.items, self.seed)

    def _uniforms(self, stream: int, rows: np.ndarray, width: int) -> np.ndarray:
        """Returns the draws of the given rows, float64 `[row, draw]` in [0, 1).

        Row i owns Philox counters `i * width / 4` and on: four draws per counter.
        """
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
        sizes = np.diff(starts, append=len(rows))
        skips = np.diff(rows[starts], prepend=0) - np.concatenate([[0], sizes[:-1]])
        philox = np.random.Philox(key=[self.seed, stream])
        runs = zip((skips * (width // 4)).tolist(), (sizes * width).tolist())
        raw = [philox.advance(skip).random_raw(size) for skip, size in runs]
        raw = np.concatenate(raw).reshape(len(rows), width)
        return (raw >> np.uint64(11)) * 2.0**-53

    def _attributes(self, families: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the items of some families and what they are.

        Args:
          families: int64 `[family]`, ascending.

        Returns:
          Numbers of the items int64 `[item]`, of their types `[item]`, and of the values of their
          attributes `[attribute, item]` in the order of `shop_catalogue.columns`.
        """
        chances, columns = catalogue.chances(), catalogue.columns()
        items = (families[:, None] * _FAMILY + np.arange(_FAMILY)).ravel()
        types = np.repeat(np.searchsorted(self._starts, families, "right") - 1, _FAMILY)
        of_families = self._uniforms(_FAMILY_DRAWS, families, _FAMILY_WIDTH)[:, :1]
        of_items = self._uniforms(_ATTRIBUTE_DRAWS, items, _ATTRIBUTE_WIDTH)
        values = np.full((len(columns) + 1, len(items)), catalogue.ABSENT)
        values[columns[catalogue.MODEL]] = items // _FAMILY
        draws = np.hstack([np.repeat(of_families, _FAMILY, axis=0), of_items]).T
        places = np.arange(len(items))
        for draw, thresholds, outcomes, column in zip(
            draws, chances.thresholds, chances.values, chances.columns
        ):
            steps = (thresholds.take(types, axis=1) <= draw).sum(axis=0)
            values[column[types], places] = outcomes[steps, types]
        exist = np.searchsorted(items, self.items)  # the last family may be smaller
        return items[:exist], types[:exist], values[:-1, :exist]

    def _model_name(self, type_: ProductType, brand: int, family: int) -> str:
        prime = next(p for p in (9973, 999983, 99999989) if p * _FAMILY > self.items)
        series = catalogue.series(type_, brand)
        return f"{series} {type_.names[0][0].upper()}{family * 7919 % prime}"

    def _title(
        self,
        type_: ProductType,
        model: str,
        present: Sequence[tuple[Facet, int]],
        draw: Callable[[], float],
    ) -> str:
        (brand, number), *others = present
        named = draw() < 0.7
        parts = [*brand.phrases[number].in_titles] if draw() < 0.85 else []
        if not named or draw() < 0.5:
            parts.append(model)
        after = []
        for facet, value in others:
            words = _pick(facet.phrases[value].in_titles, draw() ** 1.5)
            stated, before = draw() < 0.8, draw() < 0.4 and not facet.follows
            if stated:
                (parts if before else after).append(words)
        if named:
            parts.append(_pick(catalogue.in_titles(type_.names), draw() ** 1.5))
        clauses = [" ".join(parts), *after]
        if draw() < 0.35:
            other = _pick(catalogue.product_types(), draw()).names[0]
            clauses.append(
                _pick(("goes with your", "not a", "ideal next to a"), draw()) + " " + other
            )
        filler = catalogue.words()["filler"]
        clauses += [
            _pick(filler, draw()) for _ in range(int(9 * draw() ** 2))
        ]  # 0 to 8, mostly few
        if draw() < 0.3:
            clauses = [*clauses[1:], clauses[0]]
        title = string.capwords(_pick(_BREAKS, draw()).join(filter(None, clauses)))
        return _misspelt(title, draw()) if draw() < 0.08 else title

    def _item(self, type_: ProductType, values: Sequence[int], draw: Callable[[], float]) -> tuple:
        """Returns the columns of `_ITEM_SCHEMA` but for the id."""
        model = self._model_name(type_, *values[:2])
        present = _present(type_, values)
        truth = [facet.phrases[value].fact for facet, value in present]
        truth.insert(1, f"{catalogue.MODEL}={model}")
        title = self._title(type_, model, present, draw)
        description = None
        if draw() < 0.95:
            facts = "; ".join(truth).replace("=", ": ")
            description = f"A {type_.names[0]} from our {type_.group.lower()} range. {facts}."
        brand = catalogue.brand_name(values[0]) if draw() < 0.9 else None
        colour = values[catalogue.columns()["colour"]]
        has_colour = colour != catalogue.ABSENT and draw() < 0.7
        return (
            title,
            description,
            brand,
            catalogue.wordings()["colour"][colour][0] if has_colour else None,
            type_.path if draw() < 0.9 else None,
            type_.names[0],
            truth,
        )

    def _item_ids(self, numbers: np.ndarray) -> pa.Array:
        # An odd factor permutes the numbers below 2^36, so that ids tell nothing of the type.
        codes = (numbers * 2654435761 + self.seed % 2**36) % 2**36
        digits = codes[:, None] // 36 ** np.arange(6, -1, -1) % 36
        letters = np.frombuffer(f"{string.digits}{string.ascii_uppercase}".encode(), np.uint8)
        ids = np.insert(letters[digits], 0, ord("P"), axis=1)
        return pa.array(ids.view("S8").ravel()).cast(pa.string())

    def _item_chunks(self, start: int, end: int) -> Iterator[Chunk]:
        """Yields the items of one part, whole families, in the order of their numbers."""
        for first in range(start, end, _CHUNK_ITEMS):
            families = np.arange(first // _FAMILY, -(-min(first + _CHUNK_ITEMS, end) // _FAMILY))
            items, types, values = self._attributes(families)
            draws = self._uniforms(_TEXT_DRAWS, items, _TEXT_WIDTH)
            rows = [
                self._item(catalogue.product_types()[type_], row, iter(draw).__next__)
                for type_, row, draw in zip(types.tolist(), values.T.tolist(), draws.tolist())
            ]
            columns = map(pa.array, zip(*rows), _ITEM_SCHEMA.types[1:])
            yield Chunk(
                table=pa.table([self._item_ids(items), *columns], schema=_ITEM_SCHEMA),
                file="simulated items",
                first_row=first + 1,
            )

    def _some_families(
        self, numbers: np.ndarray, most: int, random: np.random.Generator
    ) -> np.ndarray:
        """Draws families of the types of these numbers, or returns all when they are few."""
        starts = self._starts[numbers]
        sizes = self._starts[numbers + 1] - starts
        total, ends = int(sizes.sum()), np.cumsum(sizes)
        taken = np.arange(total) if total <= most else np.unique(random.integers(0, total, most))
        block = np.searchsorted(ends, taken, "right")
        return starts[block] + taken - (ends - sizes)[block]

    def _pool(self, type_: ProductType, random: np.random.Generator) -> _Pool:
        """Draws items that queries for a type may be judged against."""
        families = np.concatenate(
            [
                self._some_families(numbers, most, random)
                for numbers, most in zip(_related(type_), _POOL_FAMILIES, strict=True)
            ]
        )
        items, types, values = self._attributes(np.sort(families))
        relation = catalogue.relations()[type_.number, types]
        return _Pool(items=items, values=values, relation=relation)

    def _query(
        self, type_: ProductType, values: Sequence[int], random: np.random.Generator
    ) -> _Query:
        """Asks for some of the attributes of an anchor item, in a customer's words."""
        draw = random.random
        name = _pick(type_.names, draw())
        present = _present(type_, values)
        if draw() < 0.07:
            model = self._model_name(type_, *values[:2])
            asked = present[:1]
            words = [catalogue.brand_name(values[0]), model] + ([name] if draw() < 0.3 else [])
        else:
            model = None
            count = min(len(present), bisect.bisect_left(_ASKED_THRESHOLDS, draw()))
            asked = [present[i] for i in random.choice(len(present), count, replace=False)]
            words = [name]
            for facet, value in asked:
                wording = _pick(facet.phrases[value].in_queries, draw())
                after = draw() < 0.5 or facet.follows
                words.insert(len(words) if after else 0, wording)
            if draw() < 0.06:
                words.insert(0, _pick(catalogue.words()["query filler"], draw()))
        text = " ".join(words).lower()
        if draw() < 0.04:
            text = _misspelt(text, draw())
        wanted = {facet.column: value for facet, value in asked}
        truth = [facet.phrases[value].fact for facet, value in asked]
        if model:
            wanted[catalogue.columns()[catalogue.MODEL]] = values[1]
            truth.append(f"{catalogue.MODEL}={model}")
        shares = _type_shares(self.seed)
        popularity = shares[type_.number] / shares.mean()
        frequency = 2000 * popularity * 6.0 ** -len(wanted) * random.lognormal(0, 1)
        return _Query(
            text=text,
            type_=type_,
            asked=wanted,
            truth=truth,
            frequency=float(np.ceil(frequency)),
        )

    def _judged(
        self, query: _Query, pool: _Pool, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chooses rows of a pool to be judged for a query, and gives their true grades."""
        wanted = np.array([*query.asked.values()], np.int64)
        matches = np.count_nonzero(pool.values[[*query.asked]] == wanted[:, None], axis=0)
        grades = _GRADE_OF[pool.relation, np.minimum(len(wanted) - matches, 2)]
        # Hard ones first: they share an attribute asked for, or a word of the type's name.
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
        chosen = np.concatenate([r[:count] for r, count in zip(rows, counts, strict=True)])
        return chosen, grades[chosen]

    def _judgements(self, query: _Query, pool: _Pool, random: np.random.Generator) -> np.ndarray:
        """Judges some items of a pool for a query.

        Returns:
          int64 `[column, judgement]`: number of the item, true grade, label, impressions, clicks
          and purchases.
        """
        chosen, grades = self._judged(query, pool, random)
        noisy = random.random(len(grades)) < self.label_noise
        drawn = np.searchsorted(_GRADE_THRESHOLDS, random.random(len(grades)), "right")
        labels = np.where(noisy, drawn, grades)
        # An engine of middling quality has ranked them; attention falls with the position.
        position = np.argsort(np.argsort(grades + random.normal(0, 1.5, len(grades))))
        impressions = random.poisson(query.frequency * 0.85**position)
        clicks = random.binomial(impressions, _CLICK_RATES[grades])
        purchases = random.binomial(clicks, _PURCHASE_RATES[grades])
        return np.stack([pool.items[chosen], grades, labels, impressions, clicks, purchases])

    def _blocks(self) -> list[list[tuple[int, int, int]]]:
        """Returns the blocks of each part: number of the type, of the block, of its queries."""
        shares = np.where(np.diff(self._starts) > 0, _type_shares(self.seed), 0)
        counts = _apportion(self.queries, shares)
        parts, queries = [], _PART_QUERIES
        for type_, count in enumerate(counts.tolist()):
            for block, start in enumerate(range(0, count, _BLOCK_QUERIES)):
                if queries >= _PART_QUERIES:
                    parts.append([])
                    queries = 0
                size = min(_BLOCK_QUERIES, count - start)
                parts[-1].append((type_, block, size))
                queries += size
        return parts

    def _judged_queries(
        self, number: int, block: int, queries: int
    ) -> Iterator[tuple[_Query, np.ndarray]]:
        """Yields the queries of one block with their judgements."""
        type_ = catalogue.product_types()[number]
        seen: set[str] = set()
        for batch in range(queries):  # at least one new query a batch, or there are no more
            random = np.random.Generator(
                np.random.Philox(key=[self.seed, _QUERY_DRAWS], counter=[0, block, batch, number])
            )
            pool = self._pool(type_, random)
            anchors = random.choice(np.flatnonzero(pool.relation == catalogue.OWN), _BATCH_QUERIES)
            for anchor in anchors:
                if len(seen) == queries:
                    return
                query = self._query(type_, pool.values[:, anchor].tolist(), random)
                if query.text not in seen:
                    seen.add(query.text)
                    yield query, self._judgements(query, pool, random)

    def _judgement_chunks(
        self, part: int, blocks: Sequence[tuple[int, int, int]]
    ) -> Iterator[Chunk]:
        """Yields the judgements of one part, block by block."""
        judged = itertools.chain.from_iterable(itertools.starmap(self._judged_queries, blocks))
        first = 1
        while some := list(itertools.islice(judged, _CHUNK_QUERIES)):
            table = self._judgement_table(*zip(*some))
            yield Chunk(table=table, file=f"simulated judgements {part + 1}", first_row=first)
            first += table.num_rows

    def _judgement_table(
        self, queries: Sequence[_Query], judgements: Sequence[np.ndarray]
    ) -> pa.Table:
        query = np.repeat(np.arange(len(queries)), [found.shape[1] for found in judgements])
        item, grade, label, *counts = np.concatenate(judgements, axis=1)
        grades = pa.array(_GRADES)
        columns = {
            "query": pa.array([query.text for query in queries]).take(query),
            "item_id": self._item_ids(item),
            "label": grades.take(label),
            **dict(zip(("impressions", "clicks", "purchases"), counts, strict=True)),
            "query_frequency": pa.array([query.frequency for query in queries]).take(query),
            "truth_label": grades.take(grade),
            "truth_type": pa.array([query.type_.names[0] for query in queries]).take(query),
            "truth_attributes": pa.array(
                [query.truth for query in queries], _TRUTH["truth_attributes"]
            ).take(query),
        }
        return pa.table(columns, schema=_JUDGEMENT_SCHEMA)
