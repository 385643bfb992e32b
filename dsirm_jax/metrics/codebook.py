"""How well a catalogue uses its codebooks, from the items' codes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsirm_jax.sids.codes import prefix_keys


def code_counts(codes: np.ndarray, size: int) -> np.ndarray:
    """Returns n_k, the items that have code k at one level, int64 `[size]`.

    Args:
      codes: integer `[item]`, 0-based.
      size: codes of the level.

    Raises:
      ValueError: a code lies outside the level.
    """
    if len(codes) and not (np.min(codes) >= 0 and np.max(codes) < size):
        raise ValueError(f"codes from {np.min(codes)} to {np.max(codes)} in a level of {size}")
    return np.bincount(codes, minlength=size)


def utilisation(counts: np.ndarray) -> float:
    """Returns |{k : n_k > 0}| / K, the share of codes that any item has."""
    return float(np.count_nonzero(counts) / len(counts))


def perplexity(counts: np.ndarray) -> float:
    """Returns exp(−Σ_k p_k log p_k) with p_k = n_k / Σ n, the effective number of codes."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def gini(counts: np.ndarray) -> float:
    """Returns Σ_i (2i − K − 1) n_(i) / (K Σ n) over ascending n_(i): 0 even, (K − 1)/K one code."""
    size = len(counts)
    ranks = 2 * np.arange(1, size + 1) - size - 1
    return float(np.sum(ranks * np.sort(counts)) / (size * counts.sum()))


def bucket_sizes(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Returns how many items share each occurring SID, int64 `[unique SID]`."""
    keys = prefix_keys(codes, sizes=sizes)[:, -1]
    return np.unique(keys, return_counts=True)[1]


def collision_rate(buckets: np.ndarray) -> float:
    """Returns Σ_{b > 1} b / Σ b over bucket sizes b, the share of items that share their SID."""
    return float(buckets[buckets > 1].sum() / buckets.sum())


def prefix_purity(
    codes: np.ndarray, sizes: Sequence[int], labels: np.ndarray, *, length: int
) -> float:
    """Returns Σ_prefix max_label n(prefix, label) / n over the items that have a label.

    It grows with the number of prefixes (a prefix of one item is pure), so read it beside the
    number of unique SIDs.

    Args:
      codes: integer `[item, level]`.
      sizes: codes per level.
      labels: category or brand `[item]`; None where unknown.
      length: levels of the prefix.

    Returns:
      A share in (0, 1]; NaN when no item has a label. Source: Manning et al. 2008, section 16.3.
    """
    labels = np.asarray(labels, object)
    known = np.not_equal(labels, None)
    if not known.any():
        return float("nan")
    keys = prefix_keys(codes[known], sizes=sizes)[:, length - 1]
    prefixes = np.unique(keys, return_inverse=True)[1]
    names, label_ids = np.unique(labels[known].astype(str), return_inverse=True)
    cells, counts = np.unique(prefixes * len(names) + label_ids, return_counts=True)
    best = np.zeros(prefixes.max() + 1, np.int64)
    np.maximum.at(best, cells // len(names), counts)
    return float(best.sum() / known.sum())


def prefix_agreement(
    query_codes: np.ndarray, item_codes: np.ndarray, relevant: np.ndarray
) -> dict[str, list[float]]:
    """Returns how often query and item share their first codes, among relevant pairs and others.

    Args:
      query_codes: integer `[pair, level]`: the SID of each pair's query vector.
      item_codes: integer `[pair, level]`: the SID of its item.
      relevant: bool `[pair]`.

    Returns:
      `relevant` and `irrelevant`, each the share of such pairs that agree down to each level, and
      `ratio` of the two: above 1 where the codes carry relevance. NaN where no pair is of a kind;
      infinite where only relevant pairs agree.
    """
    agrees = np.cumprod(query_codes == item_codes, axis=1)
    relevant = np.asarray(relevant, bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [agrees[of].sum(axis=0) / of.sum() for of in (relevant, ~relevant)]
        ratio = shares[0] / shares[1]
    return {
        "relevant": shares[0].tolist(),
        "irrelevant": shares[1].tolist(),
        "ratio": ratio.tolist(),
    }


def health(
    codes: np.ndarray, sizes: Sequence[int], labels: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns every figure of this module for one catalogue, ready for JSON.

    Args:
      codes: integer `[item, level]`, 0-based.
      sizes: codes per level.
      labels: arrays `[item]` by name (category, brand), None where unknown; a name with no known
        label is left out.

    Returns:
      `levels` (per level `size`, `utilisation`, `perplexity`, `gini`, `counts`), `items`,
      `unique_sids`, `collision_rate`, `largest_bucket` and `purity` (per name, by prefix length).

    Raises:
      ValueError: there is no item, or a code lies outside its level.
    """
    if not len(codes):
        raise ValueError("codebook health needs at least one item")
    levels = []
    for level, size in enumerate(sizes):
        counts = code_counts(codes[:, level], size)
        levels.append(
            {
                "size": int(size),
                "utilisation": utilisation(counts),
                "perplexity": perplexity(counts),
                "gini": gini(counts),
                "counts": counts.tolist(),
            }
        )
    buckets = bucket_sizes(codes, sizes)
    return {
        "levels": levels,
        "items": len(codes),
        "unique_sids": len(buckets),
        "collision_rate": collision_rate(buckets),
        "largest_bucket": int(buckets.max()),
        "purity": {
            name: [
                prefix_purity(codes, sizes, values, length=length)
                for length in range(1, len(sizes) + 1)
            ]
            for name, values in labels.items()
            if np.not_equal(np.asarray(values, object), None).any()
        },
    }
