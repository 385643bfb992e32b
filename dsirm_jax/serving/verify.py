"""Whether a bundle is whole, and whether all its forms give the same numbers."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.generator.decoding import NO_CODE
from dsirm_jax.generator.predict import predict
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.compute import beam_features
from dsirm_jax.relevance.features.group import BEAMS, ItemContext
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.groups import reading
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving.bundle.catalogue import NO_KEY, Catalogue
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.bundle.models import beyond, encoder_pieces
from dsirm_jax.serving.formats import in_tensorflow, saved_model, stablehlo
from dsirm_jax.serving.scorer.scorer import (
    CACHED,
    LIVE,
    QuerySids,
    Scored,
    Scorer,
    Settings,
    Source,
)
from dsirm_jax.sids import codes
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.prefix_match import Beams

BATCHES = (1, 7, 256)
TOLERANCE = 1e-5
ROUNDING = 1e-5
"""Two forms may compute a feature that far from each other, relative to its size where above 1."""
IN_MEMORY, STABLEHLO, SAVED_MODEL, SCORER = "in memory", "StableHLO", "SavedModel", "scorer"
SECONDS = 600.0
"""That a scorer's caller waits for the generator, which compiles at first."""


class Questions(NamedTuple):
    """Pairs of a query and an item.

    Attributes:
      queries: texts, cleaned, that are cached.
      item_ids: of the catalogue.
      sids: SID of each pair's item, int32 `[pair, level]`, whose probability is cached, too.
      given: the features that `saved_model.relevance` does not compute, float32 `[pair, feature]`.
    """

    queries: list[str]
    item_ids: list[str]
    sids: Int[np.ndarray, "pair level"]
    given: Float[np.ndarray, "pair feature"]


class Answers(NamedTuple):
    """What a form says of pairs.

    Attributes:
      sids: of the query, int32 `[pair, beam, level]`.
      log_probs: of these, float32 `[pair, beam]`.
      probability: that the item is relevant, float32 `[pair]`.
      vector: of the query, float32 `[pair, dim]`; `dim` is 0 where the form makes none of texts.
    """

    sids: Int[np.ndarray, "pair beam level"]
    log_probs: Float[np.ndarray, "pair beam"]
    probability: Float[np.ndarray, " pair"]
    vector: Float[np.ndarray, "pair dim"]


class Said(NamedTuple):
    """What the models before the head say of pairs.

    Attributes:
      beams: SIDs of each pair's query.
      exact: log P(first l codes | query) of each pair's SID, float32 `[pair, level]`.
      log_shares: log share of the catalogue's items that have these codes, likewise.
      vector: as in `Answers`.
    """

    beams: Beams
    exact: Float[np.ndarray, "pair level"]
    log_shares: Float[np.ndarray, "pair level"]
    vector: Float[np.ndarray, "pair dim"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far a form is from the models in memory.

    Attributes:
      form: its name.
      batch: pairs at once; of a scorer callers at once, each with a pair.
      pairs: compared.
      other_sids: SIDs at another rank, or none there, but for those of equal probability.
      of_sids: greatest difference of the probabilities of SIDs.
      of_pairs: greatest difference of the probabilities of pairs, but for those on a step.
      on_a_step: pairs whose probability jumps to that of the other form where one feature moves by
        `ROUNDING`: one of its values lies at a threshold of a tree.
      of_vectors: greatest difference of the coordinates of vectors, where the form makes them.
    """

    form: str
    batch: int
    pairs: int
    other_sids: int
    of_sids: float
    of_pairs: float
    on_a_step: int
    of_vectors: float

    @property
    def agrees(self) -> bool:
        differences = np.array([self.of_sids, self.of_pairs, self.of_vectors])
        return not self.other_sids and bool((differences <= TOLERANCE).all())  # and none is NaN


def verify(path: Path, *, pairs: int, batches: Sequence[int] = BATCHES) -> list[Comparison]:
    """Compares the contents of all files with the manifest, and all forms with each other.

    Args:
      path: of the bundle.
      pairs: of a cached query and an item that each form scores.
      batches: pairs at once; every form answers them all in batches of each size.

    Raises:
      InputError: a file is not what was written, or a SavedModel does not load with TensorFlow and
        tensorflow-text alone.
    """
    bundle = open_bundle(path, verify=True)
    return compare(bundle, questions(bundle, pairs=pairs), batches=batches)


def compare(bundle: Bundle, asked: Questions, *, batches: Sequence[int]) -> list[Comparison]:
    """Compares what the forms of a bundle answer; see `verify`.

    Raises:
      InputError: a SavedModel does not load, or a pair is not cached.
    """
    said = {batch: in_memory(bundle, asked, batch=batch) for batch in batches}
    whole = said[max(batches)]
    head = bundle.models.heads[FULL]
    expected, features = judged(bundle, asked, whole)
    beside = probabilities_beside(head, features)
    tensorflow = in_fresh_process(bundle, asked, batches=batches)
    forms: dict[str, Callable[[int], Answers]] = {
        IN_MEMORY: lambda batch: judged(bundle, asked, said[batch])[0],
        STABLEHLO: lambda batch: in_stablehlo(bundle, asked, batch=batch),
        SAVED_MODEL: tensorflow.__getitem__,
    }
    found = [
        compared(answer(batch), expected, beside=beside, form=form, batch=batch)
        for form, answer in forms.items()
        for batch in batches
    ]
    for source, served in sources(bundle).items():
        settings = Settings(waiting=max(batches), deadline=SECONDS, remembered_answers=0)
        with Scorer(served, settings=settings) as scorer:
            for batch in batches:
                answers, given = in_scorer(scorer, bundle, asked, batch=batch, source=source)
                same, near = expected, beside
                if source == LIVE:
                    # It may have other neighbours: a query of training has itself among them.
                    same, features = judged(bundle, asked._replace(given=given), whole)
                    near = probabilities_beside(head, features)
                form = f"{SCORER}, {source}"
                found.append(compared(answers, same, beside=near, form=form, batch=batch))
    return found


def compared(
    found: Answers,
    expected: Answers,
    *,
    beside: Float[np.ndarray, "neighbour pair"],
    form: str,
    batch: int,
) -> Comparison:
    """Returns how far two answers are from each other.

    Args:
      found: those of the form.
      expected: those of the models in memory.
      beside: `probabilities_beside` of these.
      form: see `Comparison`.
      batch: likewise.
    """
    # A SavedModel may lack the vectors, and a scorer does not show them.
    vectors = expected.vector[:, : found.vector.shape[1]]
    probabilities = [np.exp(answers.log_probs) for answers in (found, expected)]
    differs = (found.sids != expected.sids).any(axis=-1) & ~tied(probabilities[1])
    apart = np.abs(found.probability - expected.probability)
    jumps = np.abs(beside - expected.probability) > 10 * TOLERANCE
    reached = jumps & (np.abs(beside - found.probability) <= TOLERANCE)
    on_a_step = (apart > TOLERANCE) & reached.any(axis=0)
    return Comparison(
        form=form,
        batch=batch,
        pairs=len(found.sids),
        other_sids=int(differs.sum()),
        of_sids=float(np.abs(probabilities[0] - probabilities[1]).max(initial=0)),
        of_pairs=float(apart[~on_a_step].max(initial=0)),
        on_a_step=int(on_a_step.sum()),
        of_vectors=float(np.abs(found.vector - vectors).max(initial=0)),
    )


def tied(falling: Float[np.ndarray, "pair beam"]) -> Bool[np.ndarray, "pair beam"]:
    """Returns which beams are as probable as a neighbour, within rounding: either may come first.

    What comes after the last beam is not known, so that this one always may be another.
    """
    gap = -np.diff(falling, axis=1, append=falling[:, -1:])
    close = gap <= 1e-5 * falling
    close[:, 1:] |= close[:, :-1].copy()
    return close


def table(found: Sequence[Comparison]) -> str:
    """Returns comparisons as text."""
    lines = [
        "form            batch  pairs  other SIDs  on a step  greatest difference of SIDs    pairs"
        "  vectors"
    ]
    lines += [
        f"{of.form:<15} {of.batch:>5} {of.pairs:>6} {of.other_sids:>11} {of.on_a_step:>10} "
        f"{of.of_sids:>28.1e} {of.of_pairs:>8.1e} {of.of_vectors:>8.1e}"
        f"{'' if of.agrees else '  <- over ' + format(TOLERANCE, '.0e')}"
        for of in found
    ]
    return "\n".join(lines)


def questions(bundle: Bundle, *, pairs: int) -> Questions:
    """Returns cached queries, spread over all of them, each with an item of a SID known for it.

    Raises:
      InputError: no query is cached.
    """
    catalogue, sizes = bundle.catalogue, bundle.manifest.sizes
    if not len(catalogue.queries):
        raise InputError(f"{bundle.path}: no queries are cached, so there is nothing to compare")
    step = -(-len(catalogue.queries) // pairs)
    records = list(itertools.islice(catalogue.queries, 0, None, step))
    queries, items = [], []
    for number in range(pairs):
        key, record = records[number % len(records)]
        known = np.frombuffer(record, catalogue.record)["keys"][0]
        known = known[known != NO_KEY]
        sid = codes.unpack(known[number % len(known)], sizes=sizes)
        queries.append(key.decode())
        items.append(catalogue.items_below(sid)[0])
    asked = Questions(
        queries=queries,
        item_ids=[item.item_id for item in catalogue.items(items)],
        sids=catalogue.sids[items].astype(np.int32),
        given=np.empty((pairs, 0), np.float32),
    )
    with Scorer(bundle, settings=Settings()) as scorer:
        _, given = in_scorer(scorer, bundle, asked, batch=1, source=CACHED)
    return asked._replace(given=given)


def in_memory(bundle: Bundle, asked: Questions, *, batch: int) -> Said:
    """Returns what the models before the head say, as the stages apply them."""
    models = bundle.models
    pieces = models.vocabulary.encode(asked.queries, out_type=int)
    beams = predict(
        fitted=models.generator,
        trie=bundle.catalogue.trie,
        pieces=pieces,
        beams=bundle.manifest.settings.beams,
        batch_size=batch,
    )
    exact = score_pairs(
        fitted=models.generator,
        pieces=pieces,
        query_index=np.arange(len(pieces)),
        sids=asked.sids,
        batch_size=batch,
    )
    vector = np.empty((len(pieces), 0), np.float32)
    if models.encoder is not None:
        texts = _encoder_texts(bundle, asked.queries)
        vector = np.asarray(jax.jit(models.encoder.apply)(models.encoder_params, texts))
    return Said(beams, exact, _log_shares(bundle, asked.sids), vector)


def judged(bundle: Bundle, asked: Questions, said: Said) -> tuple[Answers, FeatureTable]:
    """Returns what the full model's head makes of it, and the columns that it reads."""
    beams, exact, log_shares, vector = said
    features = _features(bundle, asked, beams=beams, exact=exact, log_shares=log_shares)
    probability = score(bundle.models.heads[FULL], features)
    return Answers(beams.sids, beams.log_probs, probability, vector), features


def probabilities_beside(
    head: FittedHead, features: FeatureTable
) -> Float[np.ndarray, "neighbour pair"]:
    """Returns what a head makes of pairs one of whose features is off by `ROUNDING`."""
    found = []
    for column, sign in itertools.product(range(len(head.features)), (1, -1)):
        values = features.values.copy()
        moved = values[:, column]
        moved += sign * ROUNDING * np.maximum(np.abs(moved), 1)
        found.append(score(head, dataclasses.replace(features, values=values)))
    return np.stack(found)


def _encoder_texts(bundle: Bundle, queries: Sequence[str]) -> Int[np.ndarray, "query piece"]:
    """Returns queries as the encoder reads them."""
    encoder = bundle.manifest.settings.encoder
    pieces = encoder_pieces(bundle.models, encoder=encoder, texts=queries)
    shape = (len(queries), encoder.max_query_pieces)
    return rectangle(pieces, shape=shape, beyond=beyond(encoder))


def in_stablehlo(bundle: Bundle, asked: Questions, *, batch: int) -> Answers:
    """Returns what the StableHLO programs answer."""
    models, pairs = bundle.models, len(asked.queries)
    search, exactly, head = (
        stablehlo.read_program(bundle.model, name)
        for name in (stablehlo.SEARCH, stablehlo.SCORE, f"head-{FULL}")
    )
    params = jax.device_put(models.generator.params)
    trie = jax.device_put(stablehlo.plain(bundle.catalogue.trie))
    head_params = stablehlo.head_params(models.heads[FULL])
    shares = _log_shares(bundle, asked.sids)
    pieces = models.vocabulary.encode(asked.queries, out_type=int)
    tokens = rectangle(pieces, shape=(pairs, models.generator.max_pieces))
    embed = texts = None
    if models.encoder is not None:
        embed = stablehlo.read_program(bundle.model, stablehlo.ENCODER)
        texts = _encoder_texts(bundle, asked.queries)
    parts = []
    for start in range(0, pairs, batch):
        rows = np.arange(start, start + batch) % pairs
        sids, log_probs = map(np.asarray, search(params, trie, tokens[rows]))
        beams = Beams(sids, log_probs, np.isfinite(log_probs))
        some = Questions([], [], asked.sids[rows], asked.given[rows])
        exact = np.asarray(exactly(params, tokens[rows], some.sids[:, None]))[:, 0]
        features = _features(bundle, some, beams=beams, exact=exact, log_shares=shares[rows])
        vector = np.empty((batch, 0), np.float32)
        if embed is not None:
            vector = np.asarray(embed(models.encoder_params, texts[rows]))
        probability = np.asarray(head(head_params, features.values))
        parts.append(Answers(sids, log_probs, probability, vector))
    return Answers(*(np.concatenate(of)[:pairs] for of in zip(*parts)))


def in_fresh_process(
    bundle: Bundle, asked: Questions, *, batches: Sequence[int]
) -> dict[int, Answers]:
    """Returns what the SavedModel answers, by batch size, in a process without this package.

    Raises:
      InputError: it failed.
    """
    folder = bundle.path / bundle.manifest.saved_model_folder
    head = bundle.models.heads[FULL]
    names = saved_model.given_features(head, levels=asked.sids.shape[1])
    given = {saved_model.tensor_name(n): of for n, of in zip(names, asked.given.T, strict=True)}
    with tempfile.TemporaryDirectory() as scratch:
        questions, answers = Path(scratch) / "questions.npz", Path(scratch) / "answers.npz"
        queries = np.array([query.encode() for query in asked.queries])
        np.savez(questions, query=queries, sid=asked.sids, batches=batches, **given)
        done = subprocess.run(
            # Isolated: neither the working directory nor PYTHONPATH is looked into.
            [sys.executable, "-I", in_tensorflow.__file__, folder, questions, answers],
            capture_output=True,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            raise InputError(f"{folder}: TensorFlow cannot run it ({reason[:300]}); export it anew")
        with np.load(answers) as found:
            told = dict(found)
    nothing = np.empty((len(asked.queries), 0), np.float32)
    return {
        batch: Answers(*(told.get(f"{name}@{batch}", nothing) for name in Answers._fields))
        for batch in batches
    }


class Uncached(Bundle):
    """A bundle as it would be if no query were cached."""

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        return _WithoutQueries(**vars(super().catalogue))


class _WithoutQueries(Catalogue):
    def cached(self, query: str) -> None:
        return None


def sources(bundle: Bundle) -> dict[Source, Bundle]:
    """Returns what a scorer has to open so that its answers come from either source.

    Without an encoder it has no live ones.
    """
    if bundle.models.encoder is None:
        return {CACHED: bundle}
    return {CACHED: bundle, LIVE: Uncached(path=bundle.path, manifest=bundle.manifest)}


def in_scorer(
    scorer: Scorer, bundle: Bundle, asked: Questions, *, batch: int, source: Source
) -> tuple[Answers, Float[np.ndarray, "pair feature"]]:
    """Returns what a scorer answers, and what it would have for `Questions.given`.

    Args:
      scorer: open.
      bundle: whose it is.
      asked: the pairs.
      batch: callers at once.
      source: where the answers have to come from.

    Raises:
      InputError: one of them does not come from there.
    """

    def answers(query: str, item_id: str) -> tuple[QuerySids, Scored]:
        found = scorer.query_sids(query), scorer.score(query, [item_id])
        for of in found:
            if of.source != source:
                raise InputError(
                    f"query {query!r}, item {item_id!r}: the scorer's answer is {of.source}, not "
                    f"{source}; ask about queries and items that the bundle has cached"
                )
        return found

    with ThreadPoolExecutor(batch) as callers:
        queries, pairs = zip(*callers.map(answers, asked.queries, asked.item_ids))
    shape = (len(queries), bundle.manifest.settings.beams)
    sids = np.full((*shape, len(scorer.sizes)), NO_CODE, np.int32)
    log_probs = np.full(shape, -np.inf, np.float32)
    for row, of in enumerate(queries):  # fewer SIDs may exist than beams
        sids[row, : len(of.sids)] = of.sids
        log_probs[row, : len(of.sids)] = np.log(of.probabilities)
    names = [feature.name for feature in scorer.schema]
    wanted = saved_model.given_features(bundle.models.heads[FULL], levels=len(scorer.sizes))
    features = np.concatenate([of.features for of in pairs])
    return (
        Answers(
            sids=sids,
            log_probs=log_probs,
            probability=np.concatenate([of.probabilities for of in pairs]),
            vector=np.empty((len(pairs), 0), np.float32),
        ),
        features[:, [names.index(name) for name in wanted]],
    )


def _log_shares(
    bundle: Bundle, sids: Int[np.ndarray, "pair level"]
) -> Float[np.ndarray, "pair level"]:
    """Returns the log share of the catalogue's items that have the first l codes of each SID."""
    catalogue = bundle.catalogue
    of_nodes = saved_model.log_shares_of(catalogue.trie, catalogue.postings)
    shares = [
        of[tries.find(catalogue.trie, sids[:, : level + 1])] for level, of in enumerate(of_nodes)
    ]
    return np.stack(shares, axis=1)


def _features(
    bundle: Bundle,
    asked: Questions,
    *,
    beams: Beams,
    exact: Float[np.ndarray, "pair level"],
    log_shares: Float[np.ndarray, "pair level"],
) -> FeatureTable:
    """Returns the columns of the full model's head; all arguments have one row a pair."""
    head = bundle.models.heads[FULL]
    given = saved_model.given_features(head, levels=asked.sids.shape[1])
    columns = dict(zip(given, asked.given.T, strict=True))
    computed = beam_features(
        beams, ItemContext(asked.sids, exact, log_shares), groups=reading(BEAMS)
    )
    columns |= {name: np.asarray(values) for name, values in computed.items()}
    return FeatureTable(
        names=head.features,
        groups=("",) * len(head.features),
        values=np.stack([columns[name] for name in head.features], axis=1),
    )
