"""What a generator believes of a query: how much on the right branches, and how undecided it is.

A prefix is the first codes of a SID, and right where the SID of an item relevant to the query
begins with it; all SIDs that begin with right prefixes of one length are the right branches at that
level. A level says how many codes a prefix has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer


class Prefixes(NamedTuple):
    """The distinct prefixes of one length among the beams of queries, in the order of the queries.

    Attributes:
      query: row of the query of each.
      mass: probability of the query's beams that begin with it, in [0, 1].
      right: whether a relevant item's SID begins with it.
    """

    query: Int[np.ndarray, " prefix"]
    mass: Float[np.ndarray, " prefix"]
    right: Bool[np.ndarray, " prefix"]


def beam_prefixes(
    sids: Integer[np.ndarray, "query beam level"],
    log_probs: Float[np.ndarray, "query beam"],
    valid: Bool[np.ndarray, "query beam"],
    *,
    query_index: Int[np.ndarray, " pair"],
    relevant_sids: Integer[np.ndarray, "pair level"],
) -> list[Prefixes]:
    """Returns the prefixes of every length that beams begin with.

    Args:
      sids: SIDs of each query, each once.
      log_probs: of each, nats.
      valid: which of them there are.
      query_index: row of `sids` of each relevant pair.
      relevant_sids: SID of the pair's item.

    Returns:
      Of each level its prefixes. The mass of one is a lower bound of its probability, which all
      SIDs that begin with it make up. Source: this project.

    Example:
      >>> (first, whole) = beam_prefixes(
      ...     np.array([[[0, 1], [0, 2], [3, 4]]]), np.log([[0.5, 0.25, 0.125]]),
      ...     np.array([[True, True, True]]),
      ...     query_index=np.array([0]), relevant_sids=np.array([[0, 2]]))
      >>> first.mass.round(3).tolist(), first.right.tolist()
      ([0.75, 0.125], [True, False])
      >>> whole.right.tolist()
      [False, True, False]
    """
    beams = int(valid.sum())
    probability = np.exp(np.asarray(log_probs, np.float64)[valid])
    query = np.concatenate([np.nonzero(valid)[0], query_index])
    codes = np.concatenate([sids[valid], relevant_sids])
    levels = []
    for number in _prefix_numbers(query, codes):
        _, first = np.unique(number, return_index=True)
        size = len(first)
        of_beams = np.bincount(number[:beams], minlength=size) > 0
        mass = _sums(probability, number[:beams], size=size)
        right = np.bincount(number[beams:], minlength=size) > 0
        # Rounded probabilities may add up to a little more than 1.
        bounded = np.minimum(mass[of_beams], 1.0)
        levels.append(Prefixes(query[first][of_beams], bounded, right[of_beams]))
    return levels


def total_mass(prefixes: Prefixes, *, queries: int) -> Float[np.ndarray, " query"]:
    """Returns the probability of all of each query's beams, float64."""
    return _sums(prefixes.mass, prefixes.query, size=queries)


def right_mass(prefixes: Prefixes, *, queries: int) -> Float[np.ndarray, " query"]:
    """Returns the probability of each query's beams on the right branches, float64."""
    return _sums(prefixes.mass * prefixes.right, prefixes.query, size=queries)


def branch_probability(
    log_probs: Float[np.ndarray, "pair level"],
    *,
    query_index: Int[np.ndarray, " pair"],
    relevant_sids: Integer[np.ndarray, "pair level"],
    queries: int,
) -> Float[np.ndarray, "query level"]:
    """Returns the probability of the right branches, whether or not a search has found them.

    Args:
      log_probs: exact `log P(c_1..c_l | query)` of each relevant pair, nats; equal for pairs of one
        query whose SIDs begin with the same codes.
      query_index: of each pair, from 0.
      relevant_sids: SID of the pair's item.
      queries: their number; of one without a pair it is 0.

    Returns:
      float64: the sum of P over a query's distinct right prefixes of each length. Source: this
      project.

    Example:
      >>> branch_probability(np.log([[0.5, 0.25], [0.5, 0.125]]), query_index=np.array([0, 0]),
      ...                    relevant_sids=np.array([[3, 1], [3, 2]]), queries=1).tolist()
      [[0.5, 0.375]]
    """
    columns = []
    for level, number in enumerate(_prefix_numbers(query_index, relevant_sids)):
        _, first = np.unique(number, return_index=True)
        probability = np.exp(np.asarray(log_probs, np.float64)[first, level])
        columns.append(_sums(probability, query_index[first], size=queries))
    return np.stack(columns, axis=1)


def entropy(log_probs: Float[np.ndarray, "query code"]) -> Float[np.ndarray, " query"]:
    """Returns −Σ p log p of each row, nats, 0 log 0 being 0. Source: Shannon 1948.

    Example:
      >>> entropy(np.log([[0.5, 0.5]])).round(6).tolist()  # ln 2
      [0.693147]
    """
    log_probs = np.asarray(log_probs, np.float64)
    probabilities = np.exp(log_probs)
    terms = probabilities * np.where(probabilities > 0, log_probs, 0.0)
    return np.maximum(-terms.sum(axis=1), 0.0)


def beam_entropy(prefixes: Prefixes, *, queries: int) -> Float[np.ndarray, " query"]:
    """Returns the entropy over each query's prefixes, nats, their masses divided by their sum.

    What no beam has found is left out, so that it is no higher than the logarithm of the number of
    beams. NaN where a query has no beam.
    """
    total = total_mass(prefixes, queries=queries)
    share = prefixes.mass / np.where(total > 0, total, 1.0)[prefixes.query]
    terms = share * np.log(np.where(share > 0, share, 1.0))
    found = np.maximum(-_sums(terms, prefixes.query, size=queries), 0.0)
    return np.where(total > 0, found, np.nan)


def kinds_per_query(
    query_index: Int[np.ndarray, " pair"], kinds: Integer[np.ndarray, " pair"], *, queries: int
) -> Int[np.ndarray, " query"]:
    """Returns how many different kinds each query's pairs are of.

    Args:
      query_index: of each pair, from 0.
      kinds: of each pair; a negative one is not known, and counts for nothing.
      queries: their number.

    Example:
      >>> kinds_per_query(np.array([0, 0, 0, 1]), np.array([5, 7, 5, -1]), queries=2).tolist()
      [2, 0]
    """
    known = kinds >= 0
    pairs = np.unique(np.column_stack([query_index[known], kinds[known]]), axis=0)
    return np.bincount(pairs[:, 0], minlength=queries)


def _sums(
    values: Float[np.ndarray, " row"], of: Int[np.ndarray, " row"], *, size: int
) -> Float[np.ndarray, " sum"]:
    # Without any row the counts would be integers.
    return np.bincount(of, weights=values, minlength=size).astype(np.float64)


def _prefix_numbers(
    query: Int[np.ndarray, " row"], codes: Integer[np.ndarray, "row level"]
) -> list[Int[np.ndarray, " row"]]:
    """Returns, of each level, a number that rows share which have one query and one prefix.

    Numbers are in the order of queries, then of codes.
    """
    # A number is below that of rows, so that no key exceeds 63 bits.
    number, found = np.asarray(query, np.int64), []
    width = int(codes.max(initial=0)) + 1
    for code in codes.T:
        number = np.unique(number * width + code, return_inverse=True)[1]
        found.append(number)
    return found
