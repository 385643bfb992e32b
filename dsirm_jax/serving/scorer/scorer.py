"""Scores pairs and finds SIDs from a bundle: no gin, no TensorFlow, no training code.

What is known of a head query lies in the bundle, so that its pairs take array work alone. Any other
query goes to the generator, together with others that wait; where it is late, the answer is that of
the head without SIDs.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from dsirm_jax.data.text import clean
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.compute import pair_features, query_context
from dsirm_jax.relevance.digests import QueryDigests, Reading, digest_queries
from dsirm_jax.relevance.features.group import ItemContext, PairContext, PairTexts, QueryContext
from dsirm_jax.relevance.features.numeric import finite_numbers
from dsirm_jax.relevance.neighbours import (
    NEAR_ITEMS,
    NEAR_QUERIES,
    Judged,
    Neighbours,
    Surroundings,
    nearest_to,
)
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.serving.bundle import catalogue, store
from dsirm_jax.serving.bundle.catalogue import UNKNOWN, Known
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.bundle.manifest import Feature
from dsirm_jax.serving.scorer.batching import Batcher, Overloaded
from dsirm_jax.serving.scorer.generation import Generated, Generator, Request, generate, on_device
from dsirm_jax.serving.scorer.judging import Judge, Judgement
from dsirm_jax.serving.scorer.vectors import query_encoder
from dsirm_jax.sids import codes
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.prefix_match import Beams

CACHED, LIVE, FALLBACK = SOURCES = ("cached", "live", "fallback")
OVERLOADED, BATCHES, BATCHED = "overloaded", "batches", "batched"
TITLES = 3
"""Titles shown of a branch."""
EXAMPLES_FROM = 10_000
"""Cached queries that examples are chosen from."""
Source = Literal["cached", "live", "fallback"]


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
      warm_items: items of a call that programs are compiled for when the bundle is opened.
      remembered: cached queries of which what is read from the bundle is kept in memory.
      remembered_items: items whose numbers are kept likewise.
      remembered_answers: answers about cached queries that are kept for whoever asks about the same
        items again, some 25 kB each where there are 100 items; 0: none.
      programs: folder where compiled programs are kept for the next start, which then compiles
        none; None: where JAX is told to keep them, if at all.
    """

    batch: int = 32
    waiting: int = 256
    deadline: float = 1.0
    warm: tuple[int, ...] = (1,)
    most_items: int = 1024
    most_characters: int = 1024
    warm_items: int = 100
    remembered: int = 4096
    remembered_items: int = 1 << 16
    remembered_answers: int = 1024
    programs: str | None = None


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
      category: the end of their commonest category path; None where none is known.
      purity: its share of those whose path is known.
      titles: of some of these items, evenly spread over the SIDs below.
    """

    code: int
    items: int
    category: str | None
    purity: float | None
    titles: tuple[str, ...]


class Asked(NamedTuple):
    """What is known of a query without the generator; arrays have an axis of one query.

    Attributes:
      vector: dense.
      near: what lies near it.
      digests: of its text.
    """

    vector: Float[np.ndarray, "1 dim"]
    near: Surroundings
    digests: QueryDigests


class Remembered(NamedTuple):
    """A cached query.

    Attributes:
      asked: what is known without the generator.
      beams: its SIDs.
      known: log-probabilities of some SIDs.
      of_query: what features look at, on the device.
    """

    asked: Asked
    beams: Beams
    known: Known
    of_query: QueryContext


class Scorer:
    """A bundle, open.

    Threads may share one. Close it, or use it as a context manager.

    Attributes:
      schema: the columns of the features of a pair, in order.
      sizes: codes per level.
    """

    schema: tuple[Feature, ...]
    sizes: tuple[int, ...]

    def __init__(
        self,
        bundle: Bundle,
        *,
        settings: Settings,
        run: Callable[[Generator, Sequence[Request]], list[Generated]] = generate,
    ):
        """Opens what a bundle holds; `run` is what the thread that serves does."""
        # The products of a request are small: more threads would only wait for each other.
        threadpool_limits(1, user_api="blas")
        manifest, models = bundle.manifest, bundle.models
        self._settings, self.sizes, self._catalogue = settings, manifest.sizes, bundle.catalogue
        self._reading = Reading(
            models.vocabulary, self._catalogue.statistics.names, manifest.settings.language
        )
        columns = zip(manifest.settings.numbers, self._catalogue.numbers.T, strict=True)
        self._numbers = {name: finite_numbers(values) for name, values in columns}
        self._base = self._catalogue.voters.judged.relevant_share
        self._judge = Judge(manifest, heads=models.heads)
        self.schema = self._judge.schema
        self._vector = query_encoder(models, encoder=manifest.settings.encoder)
        self._generator = on_device(
            models.generator, trie=self._catalogue.trie, beams=manifest.settings.beams
        )
        self._run = run
        self._batcher = Batcher(self._generated, most=settings.batch, waiting=settings.waiting)
        self._cached = functools.lru_cache(settings.remembered)(self._read_cached)
        self._judged_cached = functools.lru_cache(settings.remembered_answers)(self._judge_cached)
        self._numbers_by_id: dict[str, int] = {}
        self._counts: collections.Counter[str] = collections.Counter()
        self._counting = threading.Lock()
        # Threads that judge cached queries at once hand the interpreter to and fro, and are slower
        # together than one after another.
        self._judging = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, *, settings: Settings | None = None) -> Scorer:
        """Opens a bundle. From then on this process's BLAS uses one thread.

        Args:
          path: the folder that `dsirm export` wrote.
          settings: how to serve.

        Raises:
          InputError: there is no bundle, or a file of it is not what it was.
        """
        settings = settings or Settings()
        if settings.programs is not None:
            jax.config.update("jax_compilation_cache_dir", settings.programs)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        scorer = cls(open_bundle(path), settings=settings)
        scorer.warm(*settings.warm)
        return scorer

    def warm(self, *batches: int) -> None:
        """Compiles what is needed to score, for some batch sizes of the generator."""
        items = np.arange(min(len(self._catalogue), self._settings.warm_items))
        sids, text = self._sids(items), "a"
        tokens = self._reading.processor.encode(text, out_type=int)
        for batch in batches:
            generated, *_ = self._run(self._generator, [Request(tokens, sids)] * batch)
            vector = np.zeros(self._catalogue.vectors.shape[1], np.float32)
            asked = self._asked(text, self._vector(text) if self._vector else vector)
            dense = self._dense(asked, items)
            of_query = self._of_query(asked, Beams(*(part[None] for part in generated.beams)))
            pairs = self._pairs(items, generated.log_probs)
            self._judge.with_sids(dense, of_query, pairs)
            self._judge.without_sids(dense)

    def close(self) -> None:
        """Ends the thread that serves; callers that wait get the answer without SIDs."""
        self._batcher.close()

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
          Overloaded: too many queries wait for the generator; or it is late, and the bundle has no
            head without SIDs.
        """
        until = self._until(deadline)
        text = self._checked(query)
        if len(item_ids) > self._settings.most_items:
            raise InputError(
                f"{len(item_ids)} items in one call; give at most {self._settings.most_items}"
            )
        numbers = self._numbered(item_ids)
        there = numbers != UNKNOWN
        items, row = np.unique(numbers[there], return_inverse=True)
        judged, source = self._judged(text, items, until=until)
        self._count(source)

        def of_ids(values: np.ndarray) -> np.ndarray:
            shown = np.full((len(numbers), *values.shape[1:]), np.nan, np.float32)
            shown[there] = values[row]
            return shown

        return Scored(
            probabilities=of_ids(judged.dense_only if source == FALLBACK else judged.full),
            dense_only=of_ids(judged.dense_only),
            source=source,
            features=of_ids(judged.features),
            unknown=tuple(item_ids[place] for place in np.flatnonzero(~there)),
        )

    def query_sids(self, query: str, *, deadline: float | None = None) -> QuerySids:
        """Returns the most probable SIDs of a query; arguments and errors as `score` has them."""
        until = self._until(deadline)
        text = self._checked(query)
        source, beams = CACHED, None
        if (cached := self._cached(text)) is not None:
            beams = _first(cached.beams)
        elif (generated := self._result(self._submit(text), until=until)) is not None:
            source, beams = LIVE, generated.beams
        else:
            source, beams = FALLBACK, _no_beams(len(self.sizes))
        self._count(source)
        return QuerySids(
            sids=beams.sids[beams.valid],
            probabilities=np.exp(beams.log_probs[beams.valid]),
            source=source,
        )

    def items(self, sid_prefix: Sequence[int], *, most: int = 50) -> list[Item]:
        """Returns items whose SID starts with some codes.

        Args:
          sid_prefix: codes of the first levels; empty for all items.
          most: items returned, the first ones in the order of their SIDs.

        Raises:
          InputError: no item has this prefix.
        """
        return self._shown(self._below(sid_prefix)[:most])

    def children(self, sid_prefix: Sequence[int]) -> list[Branch]:
        """Returns the codes that go on from a prefix, in ascending order; none from a whole SID.

        Raises:
          InputError: no item has this prefix.
        """
        self._below(sid_prefix)
        if len(sid_prefix) == len(self.sizes):
            return []
        node = int(tries.find(self._catalogue.trie, np.asarray(sid_prefix, np.int32)))
        _, codes_below = self._catalogue.trie.levels[len(sid_prefix)].children(node, node + 1)
        return [self._branch((*sid_prefix, code)) for code in codes_below.tolist()]

    def described(self, item_ids: Sequence[str]) -> list[Item]:
        """Returns items by their ids, in that order, without those that are not there."""
        numbers = self._catalogue.numbers_of(item_ids)
        return self._shown(numbers[numbers != UNKNOWN])

    def examples(self, *, most: int = 12) -> list[str]:
        """Returns texts of some cached queries, short ones from all over the alphabet."""
        keys = [key for key, _ in itertools.islice(self._catalogue.queries, EXAMPLES_FROM)]
        whole = [key.decode() for key in keys if len(key) < store.KEY_BYTES]
        ends = np.linspace(0, len(whole), min(most, len(whole)) + 1).astype(int)
        return [min(whole[start:end], key=len) for start, end in itertools.pairwise(ends)]

    def candidates(self, query: str, *, most: int = 50) -> list[str]:
        """Returns ids of items to show for a query, each once.

        First those of its SIDs, best SID first; then the nearest by cosine.

        Raises:
          InputError: as in `score`.
          Overloaded: as in `score`.
        """
        until = self._until(None)
        text = self._checked(query)
        if (cached := self._cached(text)) is not None:
            asked, beams = cached.asked, _first(cached.beams)
        else:
            self._check_vector(text, cached)
            future = self._submit(text)
            asked = self._asked(text, self._vector(text))
            generated = self._result(future, until=until)
            beams = generated.beams if generated else _no_beams(len(self.sizes))
        below = [self._catalogue.items_below(sid)[:most] for sid in beams.sids[beams.valid]]
        found = dict.fromkeys(np.concatenate([*below, asked.near.items.index[0]]).tolist())
        return [item.item_id for item in self._catalogue.items(list(found)[:most])]

    def statistics(self) -> Mapping[str, float]:
        """Returns counts since the bundle was opened, and how many queries wait now.

        `cached`, `live`, `fallback`: answers by their source; `overloaded`: calls refused;
        `batches` and `batched`: what the generator ran, and the queries in it; `waiting`: queries
        in the queue; `items` and `cached_queries`: what the bundle holds.
        """
        with self._counting:
            counts = dict(self._counts)
        return {
            **dict.fromkeys((*SOURCES, OVERLOADED, BATCHES, BATCHED), 0),
            **counts,
            "waiting": len(self._batcher),
            "items": len(self._catalogue),
            "cached_queries": len(self._catalogue.queries),
        }

    def _numbered(self, item_ids: Sequence[str]) -> Int[np.ndarray, " item"]:
        """Returns the number of each item; those asked for lately are not looked up again."""
        known = self._numbers_by_id
        found = {item_id: known[item_id] for item_id in item_ids if item_id in known}
        if missing := [item_id for item_id in item_ids if item_id not in found]:
            numbers = self._catalogue.numbers_of(missing).tolist()
            found |= zip(missing, numbers, strict=True)
            if len(known) > self._settings.remembered_items:
                known = self._numbers_by_id = {}
            known.update(pair for pair in found.items() if pair[1] != UNKNOWN)
        return np.fromiter((found[item_id] for item_id in item_ids), np.int64, len(item_ids))

    def _judged(
        self, text: str, items: Int[np.ndarray, " item"], *, until: float
    ) -> tuple[Judgement, Source]:
        """Returns what the heads make of items, and where the query's SIDs came from."""
        cached = self._cached(text)
        if cached is not None:
            judged = self._judged_cached(text, items.tobytes())
            if judged is not None:
                return judged, CACHED
        self._check_vector(text, cached)
        future = self._submit(text, sids=self._sids(items))
        # While the generator is at work:
        asked = self._asked(text, self._vector(text)) if cached is None else cached.asked
        dense = self._dense(asked, items)
        generated = self._result(future, until=until)
        if generated is None:
            if not self._judge.has_dense_only:
                self._count(OVERLOADED)
                raise Overloaded("the generator is late, and the bundle has no head without SIDs")
            return self._judge.without_sids(dense), FALLBACK
        beams = Beams(*(part[None] for part in generated.beams))
        of_query = self._of_query(asked, beams) if cached is None else cached.of_query
        pairs = self._pairs(items, generated.log_probs)
        return self._judge.with_sids(dense, of_query, pairs), LIVE

    def _judge_cached(self, text: str, items: bytes) -> Judgement | None:
        """Returns what the heads make of items, int64, for a cached query.

        None where the log-probability of an item's SID is not known.
        """
        cached, numbers = self._cached(text), np.frombuffer(items, np.int64)
        log_probs = _found(cached.known, self._sids(numbers), sizes=self.sizes)
        if log_probs is None:
            return None
        pairs = self._pairs(numbers, log_probs)
        with self._judging:
            dense = self._dense(cached.asked, numbers)
            return self._judge.with_sids(dense, cached.of_query, pairs)

    def _check_vector(self, text: str, cached: Remembered | None) -> None:
        """Raises InputError where a query has no vector and nothing can make one."""
        if cached is None and self._vector is None:
            raise InputError(
                f"query {text!r} has no vector: those of the run came from tables, so that the "
                f"bundle has no encoder, and the query is not among those cached"
            )

    def _asked(self, text: str, vector: Float[np.ndarray, " dim"]) -> Asked:
        """Returns what is known of a query without the generator."""
        near = self._near(
            nearest_to(vector, self._catalogue.vectors, k=NEAR_ITEMS),
            nearest_to(vector, self._catalogue.voters.vectors, k=NEAR_QUERIES),
        )
        return Asked(vector[None], near, digest_queries([text], self._reading))

    def _read_cached(self, text: str) -> Remembered | None:
        """Returns what the bundle knows of a query."""
        found = self._catalogue.cached(text)
        if found is None:
            return None
        near = self._near(found.items, found.queries)
        asked = Asked(found.vectors, near, digest_queries([text], self._reading))
        of_query = jax.device_put(self._of_query(asked, found.beams))
        return Remembered(asked=asked, beams=found.beams, known=found.known, of_query=of_query)

    def _near(self, items: Neighbours, queries: Neighbours) -> Surroundings:
        """Returns what lies near one query, with the judgements of its neighbours alone."""
        voters, judged = queries.index[0], self._catalogue.voters.judged
        return Surroundings(
            items=items,
            queries=Neighbours(np.arange(len(voters))[None], queries.cosine),
            judged=Judged(judged.items[voters], judged.verdicts[voters]),
        )

    def _dense(self, asked: Asked, items: Int[np.ndarray, " item"]) -> FeatureTable:
        """Returns the features that know nothing of SIDs."""
        catalogue = self._catalogue
        context = PairContext(
            query_index=np.zeros(len(items), int),
            item_index=items,
            item_row=items,
            query_vectors=asked.vector,
            item_vectors=catalogue.vectors,
            surroundings=asked.near,
            texts=PairTexts(asked.digests, catalogue.digests, catalogue.statistics.pieces),
            numbers=self._numbers,
        )
        return pair_features(context, groups=self._judge.pair_groups)

    def _of_query(self, asked: Asked, beams: Beams) -> QueryContext:
        """Returns what the features that SIDs give look at of a query."""
        return query_context(
            beams=beams, surroundings=asked.near, sids=self._catalogue.sids, base=self._base
        )

    def _pairs(
        self, items: Int[np.ndarray, " item"], log_probs: Float[np.ndarray, "item level"]
    ) -> ItemContext:
        """Returns what they look at of pairs, without the axis of queries."""
        return ItemContext(
            sids=self._sids(items),
            log_probs=log_probs,
            log_shares=self._catalogue.log_shares[items],
        )

    def _sids(self, items: Int[np.ndarray, "*items"]) -> Int[np.ndarray, "*items level"]:
        return self._catalogue.sids[items].astype(np.int32)

    def _submit(
        self, text: str, *, sids: Int[np.ndarray, "item level"] | None = None
    ) -> concurrent.futures.Future[Generated]:
        """Asks the generator for the SIDs of a query, and the probabilities of given ones."""
        tokens = self._reading.processor.encode(text, out_type=int)
        sids = np.empty((0, len(self.sizes)), np.int32) if sids is None else sids
        try:
            return self._batcher.submit(Request(tokens, sids))
        except Overloaded:
            self._count(OVERLOADED)
            raise

    def _result(
        self, future: concurrent.futures.Future[Generated], *, until: float
    ) -> Generated | None:
        """Waits for the generator; None when it is late."""
        try:
            return future.result(timeout=max(until - time.monotonic(), 0))
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            return None

    def _generated(self, requests: Sequence[Request]) -> list[Generated]:
        self._count(BATCHES)
        self._count(BATCHED, len(requests))
        return self._run(self._generator, requests)

    def _below(self, prefix: Sequence[int]) -> Int[np.ndarray, " item"]:
        """Returns the numbers of the items below a prefix, of which there have to be some."""
        in_range = len(prefix) <= len(self.sizes) and all(
            0 <= code < size for code, size in zip(prefix, self.sizes, strict=False)
        )
        found = self._catalogue.items_below(prefix) if in_range else ()
        if not len(found):
            raise InputError(f"no item's SID starts with {'-'.join(map(str, prefix))}")
        return found

    def _shown(self, numbers: Int[np.ndarray, " item"]) -> list[Item]:
        return [
            _shown(item, sid=tuple(self._sids(item.number).tolist()))
            for item in self._catalogue.items(numbers)
        ]

    def _branch(self, prefix: tuple[int, ...]) -> Branch:
        numbers = self._catalogue.items_below(prefix)
        categories = self._catalogue.categories[numbers]
        known = categories[categories != UNKNOWN]
        category = purity = None
        if len(known):
            counts = np.bincount(known)
            purity = float(counts.max() / len(known))
            (one,) = self._catalogue.items(numbers[categories == counts.argmax()][:1])
            category = one.category[-1]
        places = np.linspace(0, len(numbers) - 1, min(TITLES, len(numbers))).astype(int)
        return Branch(
            code=prefix[-1],
            items=len(numbers),
            category=category,
            purity=purity,
            titles=tuple(item.title for item in self._catalogue.items(numbers[places])),
        )

    def _checked(self, query: str) -> str:
        """Returns a query as the run would have it."""
        text = clean(query)
        if not text:
            raise InputError("the query is empty; give it a word")
        if len(text) > self._settings.most_characters:
            raise InputError(
                f"the query has {len(text)} characters; give at most "
                f"{self._settings.most_characters}"
            )
        return text

    def _until(self, deadline: float | None) -> float:
        return time.monotonic() + (self._settings.deadline if deadline is None else deadline)

    def _count(self, name: str, by: int = 1) -> None:
        with self._counting:
            self._counts[name] += by


def _found(
    known: Known, sids: Int[np.ndarray, "item level"], *, sizes: Sequence[int]
) -> Float[np.ndarray, "item level"] | None:
    """Returns the log-probabilities of SIDs of a cached query; None where one is not known."""
    keys, wanted = known.keys[0], codes.pack(sids, sizes=sizes)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return known.log_probs[0, place] if (keys[place] == wanted).all() else None


def _first(beams: Beams) -> Beams:
    """Returns the beams of the only query, without the axis of queries."""
    return Beams(*(part[0] for part in beams))


def _no_beams(levels: int) -> Beams:
    return Beams(np.empty((0, levels), np.int32), np.empty(0, np.float32), np.empty(0, bool))


def _shown(item: catalogue.Item, *, sid: tuple[int, ...]) -> Item:
    category = " > ".join(item.category)
    known = {"brand": item.brand, "colour": item.colour, "category": category} | item.attributes
    return Item(
        item_id=item.item_id,
        title=item.title,
        sid=sid,
        attributes={name: str(value) for name, value in known.items() if value not in (None, "")},
    )
