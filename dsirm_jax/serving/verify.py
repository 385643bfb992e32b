"""Whether a bundle is whole, and whether all its forms give the same numbers."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dsirm_jax.encoder.bert import ABSENT
from dsirm_jax.errors import InputError
from dsirm_jax.generator.model import PAD
from dsirm_jax.generator.predict import predict
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving import in_tensorflow, saved_model, stablehlo
from dsirm_jax.serving.bundle import Bundle, open_bundle
from dsirm_jax.serving.manifest import FULL
from dsirm_jax.serving.models import BERT, encoder_pieces
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.prefix_match import Beams

BATCHES = (1, 7, 256)
TOLERANCE = 1e-5
IN_MEMORY, STABLEHLO, SAVED_MODEL = "in memory", "StableHLO", "SavedModel"


class Questions(NamedTuple):
    """Pairs of a query and an item.

    Attributes:
      queries: texts, cleaned.
      sids: SID of each pair's item, int32 `[pair, level]`.
      given: the features that `saved_model.relevance` does not compute, float32 `[pair, feature]`.
    """

    queries: list[str]
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far a form is from the models in memory.

    Attributes:
      form: its name.
      batch: pairs at once.
      pairs: compared.
      other_sids: SIDs at another rank, or none there, but for those of equal probability.
      of_sids: greatest difference of the probabilities of SIDs.
      of_pairs: greatest difference of the probabilities of pairs.
      of_vectors: greatest difference of the coordinates of vectors, where the form makes them.
    """

    form: str
    batch: int
    pairs: int
    other_sids: int
    of_sids: float
    of_pairs: float
    of_vectors: float

    @property
    def agrees(self) -> bool:
        greatest = max(self.of_sids, self.of_pairs, self.of_vectors)
        return not self.other_sids and greatest <= TOLERANCE


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
    """Compares what the forms of a bundle answer; see `verify`."""
    expected = in_memory(bundle, asked, batch=max(batches))
    tensorflow = in_fresh_process(bundle, asked, batches=batches)
    forms: dict[str, Callable[[int], Answers]] = {
        IN_MEMORY: lambda batch: in_memory(bundle, asked, batch=batch),
        STABLEHLO: lambda batch: in_stablehlo(bundle, asked, batch=batch),
        SAVED_MODEL: tensorflow.__getitem__,
    }
    return [
        compared(answer(batch), expected, form=form, batch=batch)
        for form, answer in forms.items()
        for batch in batches
    ]


def compared(found: Answers, expected: Answers, *, form: str, batch: int) -> Comparison:
    """Returns how far two answers are from each other."""
    # A SavedModel may lack the vectors.
    vectors = expected.vector[:, : found.vector.shape[1]]
    probabilities = [np.exp(answers.log_probs) for answers in (found, expected)]
    differs = (found.sids != expected.sids).any(axis=-1) & ~tied(probabilities[1])
    return Comparison(
        form=form,
        batch=batch,
        pairs=len(found.sids),
        other_sids=int(differs.sum()),
        of_sids=float(np.abs(probabilities[0] - probabilities[1]).max(initial=0)),
        of_pairs=float(np.abs(found.probability - expected.probability).max(initial=0)),
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
    lines = ["form        batch  pairs  other SIDs  greatest difference of SIDs    pairs  vectors"]
    lines += [
        f"{of.form:<11} {of.batch:>5} {of.pairs:>6} {of.other_sids:>11} {of.of_sids:>28.1e} "
        f"{of.of_pairs:>8.1e} {of.of_vectors:>8.1e}"
        f"{'' if of.agrees else '  <- over ' + format(TOLERANCE, '.0e')}"
        for of in found
    ]
    return "\n".join(lines)


def questions(bundle: Bundle, *, pairs: int) -> Questions:
    """Returns cached queries, spread over all of them, each with one of its nearest items.

    Features that none of the forms computes are random.
    """
    catalogue, manifest = bundle.catalogue, bundle.manifest
    stored = len(catalogue.queries)
    if not stored:
        raise InputError(f"{bundle.path}: no queries are cached, so there is nothing to compare")
    step = max(stored // pairs, 1)
    queries, items = [], []
    for number, (key, record) in enumerate(itertools.islice(catalogue.queries, 0, None, step)):
        near = np.frombuffer(record, catalogue.record)["near"][0]
        queries.append(key.decode(errors="ignore"))
        items.append(near[number % len(near)])
    chosen = np.arange(pairs) % len(queries)
    head = bundle.models.heads[FULL]
    names = saved_model.given_features(head, levels=len(manifest.sizes))
    return Questions(
        queries=[queries[row] for row in chosen],
        sids=np.asarray(catalogue.sids[np.array(items)[chosen]], np.int32),
        given=np.random.default_rng(0).normal(size=(pairs, len(names))).astype(np.float32),
    )


def in_memory(bundle: Bundle, asked: Questions, *, batch: int) -> Answers:
    """Returns what the models answer, as the stages apply them."""
    models, settings = bundle.models, bundle.manifest.settings
    pieces = models.vocabulary.encode(asked.queries, out_type=int)
    beams = predict(
        fitted=models.generator,
        trie=bundle.catalogue.trie,
        pieces=pieces,
        beams=settings.beams,
        batch_size=batch,
    )
    exact = score_pairs(
        fitted=models.generator,
        pieces=pieces,
        query_index=np.arange(len(pieces)),
        sids=asked.sids,
        batch_size=batch,
    )
    head = models.heads[FULL]
    shares = _log_shares(bundle, asked.sids)
    features = _features(bundle, asked, beams=beams, exact=exact, log_shares=shares)
    vector = np.empty((len(pieces), 0), np.float32)
    if models.encoder is not None:
        texts = _encoder_texts(bundle, asked.queries)
        vector = np.asarray(jax.jit(models.encoder.apply)(models.encoder_params, texts))
    return Answers(beams.sids, beams.log_probs, score(head, features), vector)


def _encoder_texts(bundle: Bundle, queries: Sequence[str]) -> Int[np.ndarray, "query piece"]:
    """Returns queries as the encoder reads them."""
    encoder = bundle.manifest.settings.encoder
    pieces = encoder_pieces(bundle.models, encoder=encoder, texts=queries)
    beyond = ABSENT if encoder.kind == BERT else PAD
    return _rectangle(pieces, most=encoder.max_query_pieces, beyond=beyond)


def _rectangle(
    pieces: Sequence[Sequence[int]], *, most: int, beyond: int
) -> Int[np.ndarray, "text piece"]:
    """Returns texts of different lengths as one array."""
    array = np.full((len(pieces), most), beyond, np.int32)
    for row, text in enumerate(pieces):
        kept = text[:most]
        array[row, : len(kept)] = kept
    return array


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
    tokens = _rectangle(pieces, most=models.generator.max_pieces, beyond=PAD)
    embed = texts = None
    if models.encoder is not None:
        embed = stablehlo.read_program(bundle.model, stablehlo.ENCODER)
        texts = _encoder_texts(bundle, asked.queries)
    parts = []
    for start in range(0, pairs, batch):
        rows = np.arange(start, start + batch) % pairs
        sids, log_probs = map(np.asarray, search(params, trie, tokens[rows]))
        beams = Beams(sids, log_probs, np.isfinite(log_probs))
        some = Questions([], asked.sids[rows], asked.given[rows])
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
    levels = asked.sids.shape[1]
    pairs = (of[:, None] for of in (asked.sids, exact, log_shares))
    computed = {
        "paper_match": prefix_match.match_depth(beams, asked.sids[:, None])[:, 0],
        "prefix": prefix_match.prefix_features(beams, *pairs)[:, 0],
    }
    columns = dict(zip(saved_model.given_features(head, levels=levels), asked.given.T))
    for group, values in computed.items():
        names = prefix_match.columns(group, levels=levels)
        columns |= dict(zip(names, np.asarray(values).T, strict=True))
    return FeatureTable(
        names=head.features,
        groups=("",) * len(head.features),
        values=np.stack([columns[name] for name in head.features], axis=1),
    )
