"""What each form of a bundle answers about the same pairs of a query and an item."""

from __future__ import annotations

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
from jaxtyping import Float, Int

from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.devices import precision
from dsirm_jax.encoder.kinds.protocol import FittedEncoder
from dsirm_jax.generator.decoding import NO_CODE
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.compute import beam_features
from dsirm_jax.relevance.features.group import BEAMS, ItemContext
from dsirm_jax.relevance.fitted import plain_params
from dsirm_jax.relevance.groups import reading
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.formats import in_tensorflow, saved_model, stablehlo
from dsirm_jax.serving.formats.onnx_head import AppliedHead
from dsirm_jax.serving.scorer.answers import AnswerSource, QuerySids, Scored
from dsirm_jax.serving.scorer.scorer import Scorer
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.prefix_match import Beams


class PairSample(NamedTuple):
    """Pairs of a query and an item, by which forms are compared.

    Attributes:
      queries: texts, cleaned, that are cached.
      item_ids: of the catalogue.
      sids: SID of each pair's item, int32 `[pair, level]`, whose probability is cached, too.
      inputs: the features that `saved_model.relevance` does not compute, float32 `[pair, feature]`.
    """

    queries: list[str]
    item_ids: list[str]
    sids: Int[np.ndarray, "pair level"]
    inputs: Float[np.ndarray, "pair feature"]


class Answers(NamedTuple):
    """What a form answers about pairs.

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


class ModelOutputs(NamedTuple):
    """What the models before the head make of pairs.

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


def in_memory(bundle: Bundle, sample: PairSample, *, batch: int) -> ModelOutputs:
    """Returns what the models before the head make of pairs, as the stages apply them."""
    models = bundle.models
    pieces = models.prompted.pieces(sample.queries)
    beams = predict_sids(
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
        sids=sample.sids,
        batch_size=batch,
    )
    vector = np.empty((len(pieces), 0), np.float32)
    encoder = models.encoder
    if encoder is not None:
        texts = _encoder_texts(encoder, sample.queries)
        vector = np.asarray(jax.jit(precision.exact(encoder.module.apply))(encoder.params, texts))
    return ModelOutputs(beams, exact, _log_shares(bundle, sample.sids), vector)


def head_answers(
    bundle: Bundle, sample: PairSample, outputs: ModelOutputs
) -> tuple[Answers, FeatureTable]:
    """Returns what the full model's head makes of them, and the columns that it reads.

    Each pair is a list of its own, as it is in the calls of a scorer that it is compared with.
    """
    beams, exact, log_shares, vector = outputs
    features = _features(bundle, sample, beams=beams, exact=exact, log_shares=log_shares)
    probability = score(bundle.models.heads[FULL], features, lists=np.arange(len(exact)))
    sids, log_probs = np.asarray(beams.sids), np.asarray(beams.log_probs)
    return Answers(sids, log_probs, probability, vector), features


def in_stablehlo(bundle: Bundle, sample: PairSample, *, batch: int) -> Answers:
    """Returns what the StableHLO programs answer."""
    models, pairs = bundle.models, len(sample.queries)
    search, exactly, head = (
        stablehlo.read_program(bundle.model, name)
        for name in (stablehlo.SEARCH, stablehlo.SCORE, f"head-{FULL}")
    )
    params = jax.device_put(models.generator.params)
    trie = jax.device_put(stablehlo.plain(bundle.catalogue.trie))
    fitted = models.heads[FULL]
    head_params = plain_params(fitted)
    shares = _log_shares(bundle, sample.sids)
    pieces = models.prompted.pieces(sample.queries)
    tokens = rectangle(pieces, shape=(pairs, models.generator.max_pieces))
    vectors = _vectors_in_stablehlo(bundle, sample.queries)
    parts = []
    for start in range(0, pairs, batch):
        rows = np.arange(start, start + batch) % pairs
        sids, log_probs = map(np.asarray, search(params, trie, tokens[rows]))
        beams = Beams(sids, log_probs, np.isfinite(log_probs))
        some = PairSample([], [], sample.sids[rows], sample.inputs[rows])
        exact = np.asarray(exactly(params, tokens[rows], some.sids[:, None]))[:, 0]
        features = _features(bundle, some, beams=beams, exact=exact, log_shares=shares[rows])
        alone = np.arange(len(rows), dtype=np.int32)
        given = stablehlo.head_arguments(fitted, head_params, features.values, alone)
        probability = np.asarray(head(*given))
        parts.append(Answers(sids, log_probs, probability, vectors(rows)))
    return Answers(*(np.concatenate(blocks)[:pairs] for blocks in zip(*parts)))


def in_head(
    bundle: Bundle,
    sample: PairSample,
    outputs: ModelOutputs,
    *,
    head: AppliedHead,
    batch: int,
) -> Answers:
    """Returns what a form of the head makes of the features that the models in memory give."""
    expected, features = head_answers(bundle, sample, outputs)
    parts = []
    for start in range(0, len(features.values), batch):
        some = features.values[start : start + batch]
        parts.append(head(some, np.arange(len(some))))
    return expected._replace(probability=np.concatenate(parts))


def _vectors_in_stablehlo(
    bundle: Bundle, queries: Sequence[str]
) -> Callable[[Int[np.ndarray, " row"]], Float[np.ndarray, "row dim"]]:
    """Returns what makes the vectors of queries by their numbers; see `Answers.vector`."""
    encoder = bundle.models.encoder
    if encoder is None:
        return lambda rows: np.empty((len(rows), 0), np.float32)
    program = stablehlo.read_program(bundle.model, stablehlo.ENCODER)
    params, texts = encoder.params, _encoder_texts(encoder, queries)
    return lambda rows: np.asarray(program(params, texts[rows]))


def in_fresh_process(
    bundle: Bundle, sample: PairSample, *, batches: Sequence[int]
) -> dict[int, Answers]:
    """Returns what the SavedModel answers, by batch size, in a process without this package.

    Raises:
      InputError: it failed.
    """
    folder = bundle.path / bundle.manifest.saved_model_folder
    head = bundle.models.heads[FULL]
    names = saved_model.given_features(head, levels=sample.sids.shape[1])
    inputs = {
        saved_model.tensor_name(name): values
        for name, values in zip(names, sample.inputs.T, strict=True)
    }
    with tempfile.TemporaryDirectory() as scratch:
        questions, answers = Path(scratch) / "questions.npz", Path(scratch) / "answers.npz"
        queries = np.array([query.encode() for query in sample.queries])
        prompted = bundle.models.prompted
        shape = (len(queries), prompted.most)
        inputs[saved_model.PIECES] = rectangle(prompted.pieces(sample.queries), shape=shape)
        np.savez(questions, query=queries, sid=sample.sids, batches=batches, **inputs)
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
        with np.load(answers) as file:
            arrays = dict(file)
    nothing = np.empty((len(sample.queries), 0), np.float32)
    return {
        batch: Answers(*(arrays.get(f"{name}@{batch}", nothing) for name in Answers._fields))
        for batch in batches
    }


def in_scorer(
    scorer: Scorer, bundle: Bundle, sample: PairSample, *, batch: int, source: AnswerSource
) -> tuple[Answers, Float[np.ndarray, "pair feature"]]:
    """Returns what a scorer answers, and what it would have for `PairSample.inputs`.

    Args:
      scorer: open.
      bundle: whose it is.
      sample: the pairs.
      batch: callers at once.
      source: where the answers have to come from.

    Raises:
      InputError: one of them does not come from there.
    """

    def answers(query: str, item_id: str) -> tuple[QuerySids, Scored]:
        pair = scorer.query_sids(query), scorer.score(query, [item_id])
        for answer in pair:
            if answer.source != source:
                raise InputError(
                    f"query {query!r}, item {item_id!r}: the scorer's answer is {answer.source}, "
                    f"not {source}; give queries and items that the bundle has cached"
                )
        return pair

    with ThreadPoolExecutor(batch) as callers:
        queries, pairs = zip(*callers.map(answers, sample.queries, sample.item_ids))
    shape = (len(queries), bundle.manifest.settings.beams)
    sids = np.full((*shape, len(scorer.sizes)), NO_CODE, np.int32)
    log_probs = np.full(shape, -np.inf, np.float32)
    for row, beams in enumerate(queries):  # fewer SIDs may exist than beams
        sids[row, : len(beams.sids)] = beams.sids
        log_probs[row, : len(beams.sids)] = np.log(beams.probabilities)
    names = [feature.name for feature in scorer.schema]
    wanted = saved_model.given_features(bundle.models.heads[FULL], levels=len(scorer.sizes))
    features = np.concatenate([scored.features for scored in pairs])
    return (
        Answers(
            sids=sids,
            log_probs=log_probs,
            probability=np.concatenate([scored.probabilities for scored in pairs]),
            vector=np.empty((len(pairs), 0), np.float32),
        ),
        features[:, [names.index(name) for name in wanted]],
    )


def _encoder_texts(
    encoder: FittedEncoder, queries: Sequence[str]
) -> Int[np.ndarray, "query piece"]:
    """Returns queries as the encoder reads them."""
    shape = (len(queries), encoder.max_query_pieces)
    return rectangle(encoder.pieces(queries), shape=shape, beyond=encoder.padding)


def _log_shares(
    bundle: Bundle, sids: Int[np.ndarray, "pair level"]
) -> Float[np.ndarray, "pair level"]:
    """Returns the log share of the catalogue's items that have the first l codes of each SID."""
    catalogue = bundle.catalogue
    of_nodes = saved_model.log_shares_of(catalogue.trie, catalogue.postings)
    shares = [
        log_shares[tries.find(catalogue.trie, sids[:, : level + 1])]
        for level, log_shares in enumerate(of_nodes)
    ]
    return np.stack(shares, axis=1)


def _features(
    bundle: Bundle,
    sample: PairSample,
    *,
    beams: Beams,
    exact: Float[np.ndarray, "pair level"],
    log_shares: Float[np.ndarray, "pair level"],
) -> FeatureTable:
    """Returns the columns of the full model's head; all arguments have one row a pair."""
    head = bundle.models.heads[FULL]
    names = saved_model.given_features(head, levels=sample.sids.shape[1])
    columns = dict(zip(names, sample.inputs.T, strict=True))
    computed = beam_features(
        beams, ItemContext(sample.sids, exact, log_shares), groups=reading(BEAMS)
    )
    columns |= {name: np.asarray(values) for name, values in computed.items()}
    return FeatureTable(
        names=head.features,
        groups=("",) * len(head.features),
        values=np.stack([columns[name] for name in head.features], axis=1),
    )
