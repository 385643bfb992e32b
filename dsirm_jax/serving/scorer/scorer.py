"""Scores pairs and finds SIDs from a bundle: no gin, no TensorFlow, no training code.

What is known of a head query lies in the bundle, so that its pairs take array work alone. Any other
query goes to the generator, together with others that wait, if a head reads what it says; where it
is late, the answer is that of the head without SIDs.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.features.group import QueryContext
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.bundle.manifest import FeatureColumn
from dsirm_jax.serving.bundle.stored_items import UNKNOWN
from dsirm_jax.serving.counts import Counts
from dsirm_jax.serving.limits import seconds, whole
from dsirm_jax.serving.scorer import arguments, browsing, retrieval
from dsirm_jax.serving.scorer.answers import (
    CACHED,
    FALLBACK,
    LIVE,
    SOURCES,
    AnswerSource,
    Branch,
    Item,
    QuerySids,
    Retrieved,
    Scored,
)
from dsirm_jax.serving.scorer.batching import Batcher, Overloaded, waited
from dsirm_jax.serving.scorer.cached_queries import cached_queries
from dsirm_jax.serving.scorer.evidence import (
    CachedQuery,
    QueryEvidence,
    dense_features,
    evidence_in,
    item_context,
    item_sids,
    known_log_probs,
    no_beams,
    query_evidence,
    query_features,
    with_query_axis,
    without_query_axis,
)
from dsirm_jax.serving.scorer.generation import (
    Generated,
    Generator,
    GeneratorRequest,
    generate,
    on_device,
)
from dsirm_jax.serving.scorer.item_numbers import ItemNumbers
from dsirm_jax.serving.scorer.judging import Judge, Judgement
from dsirm_jax.serving.scorer.settings import ScorerSettings
from dsirm_jax.serving.scorer.vectors import query_encoder
from dsirm_jax.sids.prefix_match import Beams

OVERLOADED, BATCHES, BATCHED = "overloaded", "batches", "batched"
WARM_TEXT = "a"
"""A query that stands for any when programs are compiled."""


class Scorer:
    """A bundle, open.

    Threads may share one; a process that forks may not hand it on, as threads of its own and of JAX
    are not there in the child: there it refuses every query with a RuntimeError. Close it, or use
    it as a context manager.

    Attributes:
      schema: the columns of the features of a pair, in order.
      sizes: codes per level.
      compares_items: whether a head reads features beside those of the other items of a call.
    """

    schema: tuple[FeatureColumn, ...]
    sizes: tuple[int, ...]
    compares_items: bool

    def __init__(
        self,
        bundle: Bundle,
        *,
        settings: ScorerSettings,
        run: Callable[[Generator, Sequence[GeneratorRequest]], list[Generated]] = generate,
    ):
        """Opens what a bundle holds; `run` is what the thread that serves does."""
        # The products of a request are small: more threads would only wait for each other.
        threadpool_limits(1, user_api="blas")
        manifest, models = bundle.manifest, bundle.models
        self._shows_queries = manifest.settings.shows_queries
        self._settings, self.sizes, self._catalogue = settings, manifest.sizes, bundle.catalogue
        self._judge = Judge(manifest, heads=models.heads)
        self.compares_items = any(head.in_lists for head in models.heads.values())
        self.schema = self._judge.schema
        self._evidence = evidence_in(bundle, pair_groups=self._judge.pair_groups)
        self._vector, self._prompted = query_encoder(models.encoder), models.prompted
        beams, trie = manifest.settings.beams, self._catalogue.trie
        self._no_beams = with_query_axis(no_beams(len(self.sizes), beams=beams))
        self._generator = on_device(models.generator, trie=trie, beams=beams)
        self._run = run
        self._batcher = Batcher(self._generated, most=settings.batch, waiting=settings.waiting)
        self._cached = cached_queries(bundle, self._evidence, settings=settings)
        self._judged_cached = functools.lru_cache(settings.remembered_answers)(self._judge_cached)
        self._numbers = ItemNumbers(self._catalogue, most=settings.remembered_items)
        self._counts = Counts((*SOURCES, OVERLOADED, BATCHES, BATCHED))
        # Threads that judge at once hand the interpreter to and fro, and are slower than in turns.
        self._judging = threading.Lock()

    @classmethod
    def open(
        cls, path: str | Path, *, settings: ScorerSettings | None = None, trust: bool = False
    ) -> Scorer:
        """Opens a bundle. From then on this process's BLAS uses one thread.

        Args:
          path: the folder that `dsirm export` wrote.
          settings: how to serve.
          trust: looks at presence and sizes of its files alone, see `open_bundle`.

        Raises:
          InputError: there is no bundle, or a file of it is not what it was.
        """
        settings = settings or ScorerSettings()
        if settings.programs is not None:
            jax.config.update("jax_compilation_cache_dir", os.fspath(settings.programs))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        scorer = cls(open_bundle(path, trust=trust), settings=settings)
        scorer.warm(*settings.warm)
        return scorer

    def warm(self, *batches: int) -> None:
        """Compiles what is needed to score, for some batch sizes of the generator.

        Raises:
          InputError: a batch size is no whole number of at least 1.
        """
        for batch in batches:
            whole("a batch size to warm up", batch, least=1)
        items = np.arange(min(len(self._catalogue), self._settings.warm_items))
        sids = item_sids(self._catalogue, items)
        (tokens,) = self._prompted.pieces([WARM_TEXT])
        for batch in batches:
            generated, *_ = self._run(self._generator, [GeneratorRequest(tokens, sids)] * batch)
            no_vector = np.zeros(self._catalogue.vectors.shape[1], np.float32)
            vector = self._vector(WARM_TEXT) if self._vector else no_vector
            context = query_evidence(self._evidence, WARM_TEXT, vector)
            of_query = query_features(self._evidence, context, with_query_axis(generated.beams))
            self._judged_at_once(context, of_query, items, generated.log_probs)
            self._judge.without_sids(dense_features(self._evidence, context, items))

    def close(self) -> None:
        """Ends the thread that serves; callers that wait get the answer without SIDs."""
        self._batcher.close()
        self._cached.close()

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
          item_ids: of the catalogue; one that is not there is named in `unknown`. They may repeat.
          deadline: seconds to wait for the generator; `ScorerSettings.deadline` when None.

        Raises:
          InputError: the query is empty or too long, there are too many items, or an argument is
            not of its type; the message names it.
          Overloaded: too many queries wait for the generator; or it is late, and the bundle has no
            head without SIDs.
        """
        until = self._until(deadline)
        (text, cached), ids = self._asked(query, until=until), arguments.id_list(item_ids)
        if len(ids) > self._settings.most_items:
            raise InputError(
                f"{len(ids)} items in one call; give at most {self._settings.most_items}"
            )
        numbers = self._numbers.of(ids)
        is_known = numbers != UNKNOWN
        items, row = np.unique(numbers[is_known], return_inverse=True)
        judged, source = self._judged(text, items, cached=cached, until=until)
        self._counts.add(source)

        def by_id(values: np.ndarray) -> np.ndarray:
            shown = np.full((len(numbers), *values.shape[1:]), np.nan, np.float32)
            shown[is_known] = values[row]
            return shown

        return Scored(
            probabilities=by_id(judged.dense_only if source == FALLBACK else judged.full),
            dense_only=by_id(judged.dense_only),
            source=source,
            features=by_id(judged.features),
            unknown=tuple(ids[place] for place in np.flatnonzero(~is_known)),
        )

    def query_sids(self, query: str, *, deadline: float | None = None) -> QuerySids:
        """Returns the most probable SIDs of a query; arguments and errors as `score` has them."""
        until = self._until(deadline)
        text, cached = self._asked(query, until=until)
        source: AnswerSource
        if cached is not None:
            source, beams = CACHED, without_query_axis(cached.beams)
        elif (generated := waited(self._submit(text), until=until)) is not None:
            source, beams = LIVE, generated.beams
        else:
            source, beams = FALLBACK, no_beams(len(self.sizes))
        self._counts.add(source)
        return QuerySids(
            sids=np.asarray(beams.sids)[beams.valid],
            probabilities=np.exp(np.asarray(beams.log_probs)[beams.valid]),
            source=source,
        )

    def items(self, sid_prefix: Sequence[int], *, most: int = 50) -> list[Item]:
        """Returns items whose SID starts with some codes.

        Args:
          sid_prefix: codes of the first levels; empty for all items.
          most: items returned, at least 1, the first ones in the order of their SIDs.

        Raises:
          InputError: no item has this prefix, or an argument is not of its type.
        """
        whole("most", most, least=1)
        prefix = arguments.code_prefix(sid_prefix)
        numbers = browsing.numbers_below(self._catalogue, prefix, sizes=self.sizes)
        return browsing.listed_items(self._catalogue, numbers[:most])

    def children(self, sid_prefix: Sequence[int]) -> list[Branch]:
        """Returns the codes that go on from a prefix, in ascending order; none from a whole SID.

        Raises:
          InputError: no item has this prefix, or it is no sequence of codes.
        """
        prefix = arguments.code_prefix(sid_prefix)
        browsing.numbers_below(self._catalogue, prefix, sizes=self.sizes)
        if len(prefix) == len(self.sizes):
            return []
        return browsing.branches(self._catalogue, prefix)

    def described(self, item_ids: Sequence[str]) -> list[Item]:
        """Returns items by their ids, in that order, without those that are not in the catalogue.

        Raises:
          InputError: `item_ids` is no list of texts.
        """
        numbers = self._catalogue.numbers_of(arguments.id_list(item_ids))
        return browsing.listed_items(self._catalogue, numbers[numbers != UNKNOWN])

    def examples(self, *, most: int = 12) -> list[str]:
        """Returns texts of some cached queries, short ones from all over the alphabet.

        They come from a log: there are none unless the bundle's maker allows it, see
        `BundleSettings.shows_queries`.

        Raises:
          InputError: `most` is no whole number of at least 1.
        """
        whole("most", most, least=1)
        return browsing.example_queries(self._catalogue, most=most) if self._shows_queries else []

    def candidates(self, query: str, *, most: int = 50, deadline: float | None = None) -> list[str]:
        """Returns ids of items to show for a query, each once.

        First those of its SIDs, best SID first; then the nearest by cosine.

        Args:
          query: its text.
          most: ids returned, at least 1.
          deadline: as in `score`; where the generator is late, the nearest alone are returned.

        Raises:
          InputError: as in `score`.
          Overloaded: too many queries wait for the generator.
        """
        whole("most", most, least=1)
        context, beams, _ = self._looked_up(query, deadline=deadline)
        sids = beams.sids[beams.valid].tolist()
        below = [self._catalogue.items_below(sid)[:most] for sid in sids]
        nearest = context.near.items.row[0]
        numbers = list(dict.fromkeys(np.concatenate([*below, nearest]).tolist()))
        return [item.item_id for item in self._catalogue.items(numbers[:most])]

    def retrieve(self, query: str, *, most: int = 50, deadline: float | None = None) -> Retrieved:
        """Returns items by the prefixes of a query's SIDs, by its vector and by both.

        Arguments and errors as `candidates` has them; `most` is of each list.
        """
        whole("most", most, least=1)
        context, beams, source = self._looked_up(query, deadline=deadline)
        self._counts.add(source)
        return retrieval.retrieve(
            self._catalogue, context=context, beams=beams, source=source, most=most
        )

    def statistics(self) -> Mapping[str, float]:
        """Returns counts since the bundle was opened, and how many queries wait now.

        `cached`, `live`, `fallback`: answers by their source; `overloaded`: calls refused;
        `batches` and `batched`: what the generator ran, and the queries in it; `waiting`: queries
        in the queue; `items` and `cached_queries`: what the bundle holds; `store_…`: of a store.
        """
        return {
            **self._counts.now(),
            "waiting": len(self._batcher),
            "items": len(self._catalogue),
            **self._cached.statistics(),
        }

    def _judged(
        self,
        text: str,
        items: Int[np.ndarray, " item"],
        *,
        cached: CachedQuery | None,
        until: float,
    ) -> tuple[Judgement, AnswerSource]:
        """Returns what the heads make of items, and where the query's SIDs came from."""
        if cached and (judged := self._judged_cached(cached, items.tobytes())) is not None:
            return judged, CACHED
        context_of = self._context(text, cached)
        if not self._judge.reads_beams:
            context = context_of()
            of_query = query_features(self._evidence, context, self._no_beams)
            return self._judged_at_once(context, of_query, items), LIVE
        future = self._submit(text, sids=item_sids(self._catalogue, items))
        # While the generator is at work:
        context = context_of()
        dense = dense_features(self._evidence, context, items)
        generated = waited(future, until=until)
        if generated is None:
            if not self._judge.has_dense_only:
                self._counts.add(OVERLOADED)
                raise Overloaded("the generator is late, and the bundle has no head without SIDs")
            return self._judge.without_sids(dense), FALLBACK
        of_query = (
            cached.of_query
            if cached
            else query_features(self._evidence, context, with_query_axis(generated.beams))
        )
        pairs = item_context(self._evidence, items, generated.log_probs)
        return self._judge.with_sids(dense, of_query, pairs), LIVE

    def _judge_cached(self, cached: CachedQuery, items: bytes) -> Judgement | None:
        """Returns what the heads make of items, int64, for a cached query.

        None where a head reads the log-probability of an item's SID that is not known.
        """
        numbers, log_probs = np.frombuffer(items, np.int64), None
        if self._judge.reads_beams:
            sids = item_sids(self._catalogue, numbers)
            if (log_probs := known_log_probs(cached.known, sids, sizes=self.sizes)) is None:
                return None
        return self._judged_at_once(cached.context, cached.of_query, numbers, log_probs)

    def _judged_at_once(
        self,
        context: QueryEvidence,
        of_query: QueryContext,
        items: Int[np.ndarray, " item"],
        log_probs: Float[np.ndarray, "item level"] | None = None,
    ) -> Judgement:
        """Returns what the heads make of items without the generator; see `item_context`."""
        with self._judging:
            dense = dense_features(self._evidence, context, items)
            pairs = item_context(self._evidence, items, log_probs)
            return self._judge.with_sids(dense, of_query, pairs)

    def _context(self, text: str, cached: CachedQuery | None) -> Callable[[], QueryEvidence]:
        """Returns what finds all that is known of a query without the generator.

        Raises:
          InputError: the query has no vector and nothing can make one.
        """
        if cached is not None:
            return lambda: cached.context
        if (vector := self._vector) is None:
            raise InputError(
                f"query {text!r} has no vector: those of the run came from tables, so that the "
                f"bundle has no encoder, and the query is not among those cached"
            )
        return lambda: query_evidence(self._evidence, text, vector(text))

    def _submit(
        self, text: str, *, sids: Int[np.ndarray, "item level"] | None = None
    ) -> concurrent.futures.Future[Generated]:
        """Queues a query, whose SIDs and the probabilities of given ones the generator finds."""
        (tokens,) = self._prompted.pieces([text])
        sids = np.empty((0, len(self.sizes)), np.int32) if sids is None else sids
        try:
            return self._batcher.submit(GeneratorRequest(tokens, sids))
        except Overloaded:
            self._counts.add(OVERLOADED)
            raise

    def _looked_up(
        self, query: str, *, deadline: float | None
    ) -> tuple[QueryEvidence, Beams, AnswerSource]:
        """Returns what is known of a query, its SIDs without an axis of queries, their source."""
        until = self._until(deadline)
        text, cached = self._asked(query, until=until)
        if cached is not None:
            return cached.context, without_query_axis(cached.beams), CACHED
        context_of = self._context(text, cached)
        future = self._submit(text)
        context = context_of()  # while the generator is at work
        generated = waited(future, until=until)
        if generated is None:
            return context, no_beams(len(self.sizes)), FALLBACK
        return context, generated.beams, LIVE

    def _generated(self, requests: Sequence[GeneratorRequest]) -> list[Generated]:
        self._counts.add(BATCHES)
        self._counts.add(BATCHED, len(requests))
        return self._run(self._generator, requests)

    def _asked(self, query: str, *, until: float) -> tuple[str, CachedQuery | None]:
        """Returns a query as it is read: cleaned, and where it is cached as it is spelt there."""
        self._batcher.check_process()
        text = arguments.query_text(query, most_characters=self._settings.most_characters)
        cached = self._cached.get(text, until=until)
        return (text if cached is None else cached.text), cached

    def _until(self, deadline: float | None) -> float:
        """Returns the time of `time.monotonic` at which a caller stops waiting."""
        deadline = self._settings.deadline if deadline is None else deadline
        return time.monotonic() + seconds("deadline", deadline, most=threading.TIMEOUT_MAX)
