"""Fits and calibrates a relevance head, on queries that no earlier stage has seen."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.calibration import (
    AS_IT_IS,
    ISOTONIC,
    LOGISTIC,
    TEMPERATURE,
    Calibration,
    fit_curve,
)
from dsirm_jax.relevance.choice import Choice
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.head import RANKING, Fitting, Head, check_head
from dsirm_jax.relevance.lists import named_by, with_list_columns
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
    in_lists: Sequence[str] = (),
    lists: Int[np.ndarray, " pair"] | None = None,
    elsewhere: frozenset[str] = frozenset(),
    choice: Choice | None = None,
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
      in_lists: features, or patterns of them such as `prefix_*`, that the head reads also less
        their mean within the query's pairs and as ranks there, pairs without weight among them.
      lists: any number that the pairs of a query share; wanted where `in_lists` names some.
      elsewhere: names of features that the run has beside these.
      choice: other heads that may take the place of `head`; None: it is as it is.

    Returns:
      The head that `score.score` wants.

    Raises:
      InputError: the pairs to fit to do not hold both relevant and irrelevant ones, or a weight is
        no number of at least 0; or a head's scores have no zero, and the calibration adds none.
      FloatingPointError: the loss was not finite.
    """
    check_head(head, binding="relevance.run.head")
    training.check_none_held_out(name)
    if in_lists and lists is None:
        raise ValueError("in_lists are compared within lists; give these too")
    hashes = query_hashes(queries, seed=seed)
    compared = named_by(in_lists, features.names)
    read = features if lists is None else with_list_columns(features, lists, names=compared)
    pairs, gain_of_grade, counted = labelled_pairs(
        features=read.values, labels=labels, gains=gains, weights=weights, queries=hashes
    )
    teaching = _Teaching(pairs, read.names, read.groups, hashes[counted])
    fitting = Fitting(name, training, directory, seed, read.names, elsewhere)
    uncalibrated = functools.partial(
        FittedHead,
        features=features.names,
        gains=gain_of_grade,
        relevant=pairs.relevant,
        curve=AS_IT_IS,
        in_lists=compared,
    )
    held_out = teaching.hashes < (1 if calibration.folds else calibration.share)
    taught = teaching.rows(held_out if calibration.folds else ~held_out)
    if choice is not None:
        head = _chosen(head, choice, taught, fitting, uncalibrated)
    _check_zero(head, calibration)
    params = fit_checked(head, taught.pairs, fitting)
    uncalibrated = functools.partial(uncalibrated, head=head, params=params)
    if calibration.folds:
        unseen = _unseen(head, taught, fitting, uncalibrated, folds=calibration.folds)
    else:
        unseen = logits(uncalibrated(), teaching.rows(held_out).table)
    curve = fit_curve(
        calibration.kind,
        logits=unseen,
        labels=pairs.labels[held_out],
        weights=pairs.weights[held_out],
    )
    if curve is AS_IT_IS and (calibration.folds or calibration.share):
        log.warning(
            "%s: the %d pairs that are held out are of one class only; its probabilities are not "
            "calibrated",
            *(name, held_out.sum()),
        )
    return uncalibrated(curve=curve)


def labelled_pairs(
    *,
    features: Float[np.ndarray, "judged feature"],
    labels: Bool[np.ndarray, " judged"],
    gains: Real[np.ndarray, " judged"],
    weights: Real[np.ndarray, " judged"],
    queries: Real[np.ndarray, " judged"],
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
    features = np.asarray(features, np.float32)
    labels = np.asarray(labels, bool)[counted]
    gains = np.asarray(gains, np.float32)[counted]
    grades, grade = np.unique(np.stack([gains, labels], axis=1), axis=0, return_inverse=True)
    pairs = LabelledPairs(
        features=features if counted.all() else features[counted],  # a copy may be gigabytes
        labels=labels,
        grades=grade.astype(np.int32).reshape(-1),
        gains=gains,
        weights=weights.astype(np.float32)[counted],
        queries=np.unique(queries[counted], return_inverse=True)[1].astype(np.int32),
        relevant=tuple(grades[:, 1].astype(bool).tolist()),
    )
    return pairs, tuple(grades[:, 0].tolist()), counted


class _Teaching(NamedTuple):
    """Pairs that teach a head.

    Attributes:
      pairs: the pairs.
      names: of their features.
      groups: of their features.
      hashes: number of each pair's query, see `query_hashes`.
    """

    pairs: LabelledPairs
    names: tuple[str, ...]
    groups: tuple[str, ...]
    hashes: Float[np.ndarray, " pair"]

    @property
    def table(self) -> FeatureTable:
        """What the head is given of them."""
        return FeatureTable(names=self.names, groups=self.groups, values=self.pairs.features)

    def rows(self, kept: np.ndarray) -> _Teaching:
        """Returns the pairs that a mask keeps."""
        return self._replace(pairs=self.pairs.rows(kept), hashes=self.hashes[kept])


def _unseen(
    head: Head,
    teaching: _Teaching,
    fitting: Fitting,
    fitted: Callable[..., FittedHead],
    *,
    folds: int,
) -> Float[np.ndarray, " pair"]:
    """Returns the score of each pair by a head that is fitted to other folds of the queries."""
    scores = np.zeros(len(teaching.pairs), np.float32)
    part = (teaching.hashes * folds).astype(int)
    for number in np.unique(part):
        rows = part == number
        of_fold = fitting._replace(
            name=f"{fitting.name}, fold {number}", directory=fitting.directory / f"fold_{number}"
        )
        params = fit_checked(head, teaching.pairs.rows(~rows), of_fold)
        scores[rows] = logits(fitted(head=head, params=params), teaching.table.rows(rows))
    return scores


def _chosen(
    head: Head,
    choice: Choice,
    teaching: _Teaching,
    fitting: Fitting,
    fitted: Callable[..., FittedHead],
) -> Head:
    """Returns which of a head and its rivals is best on queries that it is not fitted to."""
    heads = (head, *choice.rivals)
    worths = []
    for number, each in enumerate(heads):
        at = fitting._replace(
            name=f"{fitting.name}, choice {number}",
            directory=fitting.directory / f"choice_{number}",
        )
        scores = _unseen(each, teaching, at, fitted, folds=choice.folds)
        worths.append(choice.worth(teaching.pairs, scores))
    best = int(np.argmax(worths))  # the first where several are
    log.info(
        "%s: head %d of %d, %s, is best by %s: %s",
        *(fitting.name, best, len(heads), type(heads[best]).__name__, choice.metric),
        ", ".join(f"{worth:.4f}" for worth in worths),
    )
    return heads[best]


def _check_zero(head: Head, calibration: Calibration) -> None:
    """Raises InputError where scores without a zero would be taken for log-odds."""
    wanted = calibration.folds or calibration.share
    if head.loss == RANKING and not (wanted and calibration.kind != TEMPERATURE):
        raise InputError(
            f"gin binding Calibration.kind is {calibration.kind!r} (folds {calibration.folds}, "
            f"share {calibration.share}), and the scores of {type(head).__name__}, whose loss is "
            f"{RANKING!r}, have no zero; bind {LOGISTIC!r} or {ISOTONIC!r}, and folds or a share"
        )


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
