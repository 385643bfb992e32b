"""Whether a bundle is whole, and whether all its forms give the same numbers."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle.cached import NO_KEY
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.formats import onnx_head, xgboost_head
from dsirm_jax.serving.formats.onnx_head import AppliedHead
from dsirm_jax.serving.limits import whole
from dsirm_jax.serving.scorer.answers import CACHED, LIVE, AnswerSource
from dsirm_jax.serving.scorer.scorer import Scorer
from dsirm_jax.serving.scorer.settings import ScorerSettings
from dsirm_jax.serving.verification.answers import (
    Answers,
    PairSample,
    head_answers,
    in_fresh_process,
    in_head,
    in_memory,
    in_scorer,
    in_stablehlo,
)
from dsirm_jax.serving.verification.comparison import Comparison, comparison, probabilities_beside
from dsirm_jax.serving.verification.cutting import cut_otherwise
from dsirm_jax.sids import codes

log = logging.getLogger(__name__)
NAMED = 10
"""Queries that the log names of those that are cut otherwise."""
BATCHES = (1, 7, 256)
IN_MEMORY, STABLEHLO, SAVED_MODEL, SCORER = "in memory", "StableHLO", "SavedModel", "scorer"
ONNX = "ONNX"
SECONDS = 600.0
"""That a scorer's caller waits for the generator, which compiles at first."""


def verify(path: Path, *, pairs: int, batches: Sequence[int] = BATCHES) -> list[Comparison]:
    """Compares the contents of all files with the manifest, and all forms with each other.

    Cached queries that the SavedModel cuts into other pieces, of equal probability, are named in
    the log, and not among those compared.

    Args:
      path: of the bundle.
      pairs: of a cached query and an item that each form scores.
      batches: pairs at once; every form answers them all in batches of each size.

    Raises:
      InputError: a file is not what was written, or a SavedModel does not load with TensorFlow and
        tensorflow-text alone; or there is no pair or batch.
    """
    whole("pairs", pairs, least=1)
    for batch in batches:
        whole("a size of batches", batch, least=1)
    if not batches:
        raise InputError("batches is empty; give the sizes of some")
    bundle = open_bundle(path)
    texts = (text for text, _ in bundle.catalogue.cached_queries())
    apart = list(cut_otherwise(bundle.models, texts))
    for query in apart[:NAMED]:
        log.warning("%s", query)
    if len(apart) > NAMED:
        log.warning("and %s more such queries", f"{len(apart) - NAMED:,}")
    sample = sample_pairs(bundle, pairs=pairs, without={query.query for query in apart})
    return all_comparisons(bundle, sample, batches=batches)


def all_comparisons(
    bundle: Bundle, sample: PairSample, *, batches: Sequence[int]
) -> list[Comparison]:
    """Compares what the forms of a bundle answer; see `verify`.

    Raises:
      InputError: a SavedModel does not load, or a pair is not cached.
    """
    outputs = {batch: in_memory(bundle, sample, batch=batch) for batch in batches}
    at_once = outputs[max(batches)]
    head = bundle.models.heads[FULL]
    expected, features = head_answers(bundle, sample, at_once)
    beside = probabilities_beside(head, features)
    tensorflow = in_fresh_process(bundle, sample, batches=batches)
    forms: dict[str, Callable[[int], Answers]] = {
        IN_MEMORY: lambda batch: head_answers(bundle, sample, outputs[batch])[0],
        STABLEHLO: lambda batch: in_stablehlo(bundle, sample, batch=batch),
        SAVED_MODEL: tensorflow.__getitem__,
    }

    def applied(head: AppliedHead) -> Callable[[int], Answers]:
        return lambda batch: in_head(bundle, sample, outputs[batch], head=head, batch=batch)

    forms |= {form: applied(further) for form, further in other_heads(bundle.model).items()}
    comparisons = [
        comparison(answer(batch), expected, beside=beside, form=form, batch=batch)
        for form, answer in forms.items()
        for batch in batches
    ]
    for source, served in sources(bundle).items():
        settings = ScorerSettings(waiting=max(batches), deadline=SECONDS, remembered_answers=0)
        with Scorer(served, settings=settings) as scorer:
            for batch in batches:
                answers, inputs = in_scorer(scorer, bundle, sample, batch=batch, source=source)
                same, near = expected, beside
                if source == LIVE:
                    # It may have other neighbours: a query of training has itself among them.
                    same, features = head_answers(bundle, sample._replace(inputs=inputs), at_once)
                    near = probabilities_beside(head, features)
                form = f"{SCORER}, {source}"
                comparisons.append(comparison(answers, same, beside=near, form=form, batch=batch))
    return comparisons


def other_heads(folder: Path) -> dict[str, AppliedHead]:
    """Returns the full model's head by its further forms, as far as they are there and run here.

    Args:
      folder: `model/` of a bundle.

    Raises:
      InputError: one cannot be read.
    """
    found: dict[str, AppliedHead] = {}
    if onnx_head.is_readable(folder, FULL):
        found[ONNX] = onnx_head.read_head(onnx_head.head_file(folder, FULL))
    return found | xgboost_head.readable_heads(folder, FULL)


def sample_pairs(
    bundle: Bundle, *, pairs: int, without: Collection[str] = frozenset()
) -> PairSample:
    """Returns cached queries, spread over all of them, each with an item of a SID known for it.

    Where the head compares the pairs of a query, no query has two: forms take other pairs at once.

    Args:
      bundle: that caches them.
      pairs: wanted.
      without: queries that are not among them.

    Raises:
      InputError: no query is cached.
    """
    catalogue, sizes = bundle.catalogue, bundle.manifest.sizes
    if not len(catalogue.queries):
        raise InputError(f"{bundle.path}: no queries are cached, so there is nothing to compare")
    step = -(-len(catalogue.queries) // pairs)
    rows = (row for row in catalogue.cached_queries() if row[0] not in without)
    records = list(itertools.islice(rows, 0, None, step))
    if not records:
        raise InputError(f"{bundle.path}: every cached query is cut otherwise in the SavedModel")
    if bundle.models.heads[FULL].in_lists:
        pairs = min(pairs, len(records))
    queries, items = [], []
    for number in range(pairs):
        query, record = records[number % len(records)]
        known = np.frombuffer(record, catalogue.record)["keys"][0]
        known = known[known != NO_KEY]
        sid = codes.unpack(known[number % len(known)], sizes=sizes)
        queries.append(query)
        items.append(catalogue.items_below(sid.tolist())[0])
    sample = PairSample(
        queries=queries,
        item_ids=[item.item_id for item in catalogue.items(items)],
        sids=catalogue.sids[items].astype(np.int32),
        inputs=np.empty((pairs, 0), np.float32),
    )
    with Scorer(bundle, settings=ScorerSettings()) as scorer:
        _, inputs = in_scorer(scorer, bundle, sample, batch=1, source=CACHED)
    return sample._replace(inputs=inputs)


def sources(bundle: Bundle) -> dict[AnswerSource, Bundle]:
    """Returns what a scorer has to open so that its answers come from either source.

    Without an encoder it has no live ones.
    """
    if bundle.models.encoder is None:
        return {CACHED: bundle}
    return {CACHED: bundle, LIVE: Uncached(path=bundle.path, manifest=bundle.manifest)}


class Uncached(Bundle):
    """A bundle as it would be if no query were cached."""

    @functools.cached_property
    def catalogue(self) -> BundleCatalogue:
        whole = super().catalogue
        names = [field.name for field in dataclasses.fields(whole)]
        return _WithoutQueries(**{name: getattr(whole, name) for name in names})


class _WithoutQueries(BundleCatalogue):
    def _row(self, query: str) -> None:
        return None
