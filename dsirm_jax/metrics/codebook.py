"""How well a catalogue uses its codebooks, from the items' codes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped

from dsirm_jax.metrics.bootstrap import Statistic
from dsirm_jax.sids.codes import prefix_keys


def code_counts(codes: Integer[np.ndarray, " item"], size: int) -> Int[np.ndarray, " size"]:
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


def utilisation(counts: Integer[np.ndarray, " code"]) -> float:
    """Returns |{k : n_k > 0}| / K, the share of codes that any item has; NaN without any code.

    Example:
      >>> utilisation(np.array([4, 0, 1, 0]))
      0.5
    """
    return float(np.count_nonzero(counts) / len(counts)) if len(counts) else float("nan")


def perplexity(counts: Integer[np.ndarray, " code"]) -> float:
    """Returns exp(−Σ_k p_k log p_k) with p_k = n_k / Σ n, the effective number of codes.

    NaN without any item.

    Example:
      >>> round(perplexity(np.array([5, 5, 0, 0])), 6)
      2.0
    """
    if not np.any(counts):
        return float("nan")
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def gini(counts: Integer[np.ndarray, " code"]) -> float:
    """Returns Σ_i (2i − K − 1) n_(i) / (K Σ n) over ascending n_(i): 0 even, (K − 1)/K one code.

    NaN without any item.

    Example:
      >>> gini(np.array([3, 3, 3])), gini(np.array([0, 0, 0, 8]))
      (0.0, 0.75)
    """
    if not np.any(counts):
        return float("nan")
    size = len(counts)
    ranks = 2 * np.arange(1, size + 1) - size - 1
    return float(np.sum(ranks * np.sort(counts)) / (size * counts.sum()))


def bucket_sizes(
    codes: Integer[np.ndarray, "item level"], sizes: Sequence[int]
) -> Int[np.ndarray, " sid"]:
    """Returns how many items share each occurring SID, int64 `[unique SID]`."""
    keys = prefix_keys(codes, sizes=sizes)[:, -1]
    return np.unique(keys, return_counts=True)[1]


def collision_rate(buckets: Integer[np.ndarray, " sid"]) -> float:
    """Returns Σ_{b > 1} b / Σ b over bucket sizes b, the share of items that share their SID.

    NaN without any item.

    Example:
      >>> collision_rate(np.array([1, 1, 2]))  # of four items two share one SID
      0.5
    """
    if not len(buckets):
        return float("nan")
    return float(buckets[buckets > 1].sum() / buckets.sum())


def prefix_purity(
    codes: Integer[np.ndarray, "item level"],
    sizes: Sequence[int],
    labels: Shaped[np.ndarray, " item"],
    *,
    length: int,
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
    known = _known(labels)
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
    query_codes: Integer[np.ndarray, "pair level"],
    item_codes: Integer[np.ndarray, "pair level"],
    relevant: Shaped[np.ndarray, " pair"],
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
        shares = [agrees[rows].sum(axis=0) / rows.sum() for rows in (relevant, ~relevant)]
        ratio = shares[0] / shares[1]
    return {
        "relevant": shares[0].tolist(),
        "irrelevant": shares[1].tolist(),
        "ratio": ratio.tolist(),
    }


def agreement_ratio(
    queries: Shaped[np.ndarray, " pair"],
    query_codes: Integer[np.ndarray, "pair level"],
    item_codes: Integer[np.ndarray, "pair level"],
    relevant: Shaped[np.ndarray, " pair"],
    *,
    length: int,
) -> Statistic:
    """Returns `prefix_agreement`'s ratio at one length as a statistic of `metrics.bootstrap`.

    Args:
      queries: query of each pair, `[pair]`.
      query_codes: see `prefix_agreement`.
      item_codes: see `prefix_agreement`.
      relevant: see `prefix_agreement`.
      length: levels that have to agree.

    Returns:
      The ratio by resample; NaN where a resample has no relevant pair, or no irrelevant one that
      agrees.
    """
    index = np.unique(queries, return_inverse=True)[1]
    agrees = np.all(query_codes[:, :length] == item_codes[:, :length], axis=1)
    relevant = np.asarray(relevant, bool)
    # A row each: relevant pairs, those that agree, irrelevant pairs, those that agree. [4, query]
    sums = np.stack(
        [
            np.bincount(index, weights=pairs)
            for pairs in (relevant, relevant & agrees, ~relevant, ~relevant & agrees)
        ]
    )

    def statistic(counts: Int[np.ndarray, "query resample"]) -> Float[np.ndarray, " resample"]:
        pairs, agreeing, other_pairs, others_agreeing = sums @ counts
        below = pairs * others_agreeing
        undefined = np.full(below.shape, np.nan)
        return np.divide(agreeing * other_pairs, below, out=undefined, where=below > 0)

    return statistic


class SharedInformation(NamedTuple):
    """What codes and labels tell of each other, as a share of the mean of their entropies.

    Attributes:
      nmi: mutual information, normalised; codes that are finer than the data allow have a high one
        by chance.
      ami: the same less what codes and labels of the same frequencies share by chance: 0 where they
        have nothing to do with each other.
    """

    nmi: float
    ami: float


def shared_information(
    codes: Integer[np.ndarray, " item"],
    labels: Shaped[np.ndarray, " item"],
    *,
    groups: Shaped[np.ndarray, " item"] | None = None,
) -> SharedInformation:
    """Returns normalised and adjusted mutual information of codes with labels, within groups.

    With I, E[I] under random pairing, and H as means over the items' groups: NMI is
    I / ½(H(codes) + H(labels)), AMI is (I − E[I]) / (½(H(codes) + H(labels)) − E[I]).

    Args:
      codes: codes, or keys of prefixes, `[item]`.
      labels: attribute of each item, known for all, `[item]`.
      groups: group of each item, `[item]`; one group when not given.

    Returns:
      Both figures. NaN where neither codes nor labels differ within a group and, for AMI, where
      chance leaves nothing to tell. Source: Vinh et al. 2010 (JMLR 11) for one group, of which
      scikit-learn has the parts; the mean over groups is this project's.
    """
    from sklearn.metrics import cluster

    if not len(codes):
        return SharedInformation(nmi=float("nan"), ami=float("nan"))
    if groups is None:
        groups = np.zeros(len(codes), int)
    numbers = np.unique(groups, return_inverse=True)[1]
    by_group = np.argsort(numbers, kind="stable")
    members = np.split(by_group, np.flatnonzero(np.diff(numbers[by_group])) + 1)
    information, chance, entropies = np.zeros(3)
    for rows in members:
        table = cluster.contingency_matrix(labels[rows], codes[rows], sparse=True)
        share = len(rows) / len(codes)
        marginals = (np.asarray(table.sum(axis=axis)).ravel() for axis in (0, 1))
        information += share * cluster.mutual_info_score(None, None, contingency=table)
        chance += share * cluster.expected_mutual_information(table, len(rows))
        entropies += share * sum(np.log(perplexity(counts)) for counts in marginals) / 2
    with np.errstate(invalid="ignore"):
        nmi = information / entropies
    left = entropies - chance
    ami = (information - chance) / left if left > 1e-9 else float("nan")
    return SharedInformation(nmi=float(nmi), ami=float(ami))


def churn(
    before: Integer[np.ndarray, "item level"], after: Integer[np.ndarray, "item level"]
) -> dict[str, Any]:
    """Returns how far SIDs have changed.

    Args:
      before: integer `[item, level]`, -1 for items that had none.
      after: integer `[item, level]`.

    Returns:
      `items`, those that had a SID, and `changed`, the share of them whose first codes down to each
      level are others now; 0 without any.

    Example:
      >>> churn(np.array([[0, 1], [0, 1], [-1, -1]]), np.array([[0, 2], [0, 1], [1, 1]]))
      {'items': 2, 'changed': [0.0, 0.5]}
    """
    known = before[:, 0] >= 0
    kept = np.cumprod(before[known] == after[known], axis=1)
    changed = np.sum(1 - kept, axis=0) / max(known.sum(), 1)
    return {"items": int(known.sum()), "changed": changed.tolist()}


def codebook_health(
    codes: Integer[np.ndarray, "item level"],
    sizes: Sequence[int],
    labels: Mapping[str, Shaped[np.ndarray, " item"]] | None = None,
) -> dict[str, Any]:
    """Returns every figure of this module for one catalogue, ready for JSON.

    Args:
      codes: integer `[item, level]`, 0-based.
      sizes: codes per level.
      labels: arrays `[item]` by name (category, brand), None where unknown; a name with no known
        label is left out. None are needed.

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
            for name, values in (labels or {}).items()
            if _known(values).any()
        },
    }


def _known(labels: Shaped[np.ndarray, " item"]) -> Bool[np.ndarray, " item"]:
    return np.not_equal(np.asarray(labels, object), np.array(None))
