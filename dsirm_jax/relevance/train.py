"""Fits and calibrates a relevance head, on queries that no earlier stage has seen."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Real

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.calibration import AS_IT_IS, Calibration, fit_curve
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.head import Fitting, Head, check_head
from dsirm_jax.relevance.pairs import LabelledPairs
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import logits
from dsirm_jax.training.settings import Training

log = logging.getLogger(__name__)


def train(
    *,
    name: str,
    features: FeatureTable,
    labels: Bool[np.ndarray, " pair"],
    gains: Real[np.ndarray, " pair"],
    weights: Real[np.ndarray, " pair"],
    queries: Sequence[str],
    head: Head,
    training: Training,
    calibration: Calibration,
    directory: Path,
    seed: int,
) -> FittedHead:
    """Fits a head to the pairs of the split `head` and calibrates it.

    Args:
      name: what progress and errors call it, e.g. `relevance full`.
      features: of the pairs of the split `head`, never of queries of another split.
      labels: whether each pair is relevant.
      gains: gain of each pair; pairs of one gain and label are of one grade.
      weights: importance of each pair, non-negative; a pair without any is left out.
      queries: text of each pair's query.
      head: its settings.
      training: settings of gradient steps; heads that take none have all of theirs themselves.
      calibration: how probabilities are made honest.
      directory: where checkpoints and logs go.
      seed: seed of the initial parameters, the order of pairs and the choice of queries that
        calibrate.

    Returns:
      The head that `score.score` wants.

    Raises:
      InputError: the pairs to fit to do not hold both relevant and irrelevant ones, or a weight is
        no number of at least 0.
      FloatingPointError: the loss was not finite.
    """
    check_head(head, binding="relevance.run.head")
    training.check_none_held_out(name)
    hashes = query_hashes(queries, seed=seed)
    pairs, gain_of_grade, counted = labelled_pairs(
        features=features.values, labels=labels, gains=gains, weights=weights, queries=hashes
    )
    hashes, kept = hashes[counted], features.rows(counted)
    fitting = Fitting(name, training, directory, seed)
    uncalibrated = functools.partial(
        FittedHead,
        head=head,
        features=features.names,
        gains=gain_of_grade,
        relevant=pairs.relevant,
        curve=AS_IT_IS,
    )
    if calibration.folds:
        params = fit_checked(head, pairs, fitting)
        held_out = np.ones(len(pairs), bool)
        unseen = np.zeros(len(pairs), np.float32)
        part = (hashes * calibration.folds).astype(int)
        for number in np.unique(part):
            rows = part == number
            of_fold = fitting._replace(
                name=f"{name}, fold {number}", directory=directory / f"fold_{number}"
            )
            other = fit_checked(head, pairs.rows(~rows), of_fold)
            unseen[rows] = logits(uncalibrated(params=other), kept.rows(rows))
    else:
        held_out = hashes < calibration.share
        params = fit_checked(head, pairs.rows(~held_out), fitting)
        unseen = logits(uncalibrated(params=params), kept)
    curve = fit_curve(
        calibration.kind,
        logits=unseen[held_out],
        labels=pairs.labels[held_out],
        weights=pairs.weights[held_out],
    )
    if curve is AS_IT_IS and (calibration.folds or calibration.share):
        log.warning(
            "%s: the %d pairs that are held out are of one class only; its probabilities are not "
            "calibrated",
            *(name, held_out.sum()),
        )
    return uncalibrated(params=params, curve=curve)


def labelled_pairs(
    *,
    features: Float[np.ndarray, "judged feature"],
    labels: Bool[np.ndarray, " judged"],
    gains: Real[np.ndarray, " judged"],
    weights: Real[np.ndarray, " judged"],
    queries: Float[np.ndarray, " judged"],
) -> tuple[LabelledPairs, tuple[float, ...], Bool[np.ndarray, " judged"]]:
    """Returns judged pairs as heads are fitted to them.

    Args:
      features: finite.
      labels: as in `train`.
      gains: likewise.
      weights: likewise.
      queries: a number of each pair's query, by which queries are put in order.

    Returns:
      The pairs that have weight; the gain of each grade, rising; which pairs have weight.

    Raises:
      InputError: a weight is no number of at least 0.
    """
    weights = np.asarray(weights)
    counted = weights > 0
    wrong = ~(counted | (weights == 0)) | np.isinf(weights)
    if wrong.any():
        raise InputError(
            f"the weight of judged pair {wrong.argmax()} is {weights[wrong][0]}; give finite "
            f"weights of at least 0"
        )
    labels = np.asarray(labels, bool)[counted]
    gains = np.asarray(gains, np.float32)[counted]
    grades, grade = np.unique(np.stack([gains, labels], axis=1), axis=0, return_inverse=True)
    pairs = LabelledPairs(
        features=np.asarray(features, np.float32)[counted],
        labels=labels,
        grades=grade.astype(np.int32).reshape(-1),
        gains=gains,
        weights=weights.astype(np.float32)[counted],
        queries=np.unique(queries[counted], return_inverse=True)[1].astype(np.int32),
        relevant=tuple(grades[:, 1].astype(bool).tolist()),
    )
    return pairs, tuple(grades[:, 0].tolist()), counted


def fit_checked(head: Head, pairs: LabelledPairs, fitting: Fitting) -> Any:
    """Returns what a head learns from pairs.

    Raises:
      InputError: the pairs are of one class only.
    """
    labels = pairs.labels
    if not (labels.any() and not labels.all()):
        raise InputError(
            f"{fitting.name}: the {len(labels)} pairs of the split head that the head is fitted to "
            f"are of one class only; give more queries to the head or bind relevant_labels so that "
            f"both relevant and irrelevant pairs remain"
        )
    return head.fit(pairs, fitting)


def query_hashes(queries: Sequence[str], *, seed: int) -> Float[np.ndarray, " pair"]:
    """Returns a number in [0, 1) for each pair's query, from its text and the seed alone.

    All pairs of a query are on one side of any bound, and new queries move no old one.
    """
    numbers = {query: _uniform(query, seed) for query in set(queries)}
    return np.fromiter((numbers[query] for query in queries), float, len(queries))


def _uniform(query: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}\t{query}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
