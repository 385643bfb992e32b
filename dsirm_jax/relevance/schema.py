"""Named features of pairs, in groups that a rung of the ablation ladder chooses from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.prefix_match import Feature

NUMERIC = "numeric"
"""The group of the user's own numbers about items: a column of that name in `Source.extras`."""
WITHOUT_SIDS = (
    Feature("cosine", "dense", False, "cosine of query and item"),
    Feature("bm25", "lexical", False, "BM25 of the item's text, over SentencePiece pieces"),
    Feature("bm25_share", "lexical", False, "bm25 over the sum of the query's idf"),
    Feature("overlap", "lexical", False, "share of the query's distinct pieces in the item's text"),
    Feature("coverage", "lexical", False, "share of the item's distinct pieces in the query"),
    Feature("phrase", "lexical", False, "1 if the query stands in the text word for word"),
    Feature("query_length", "lexical", False, "log(1 + the query's distinct pieces)"),
    Feature("brand", "attributes", False, "1: the query names the item's brand; -1: another's"),
    Feature("colour", "attributes", False, "1: the query names the item's colour; -1: another"),
    Feature("numbers", "attributes", False, "share of the query's numbers in the item's text"),
    Feature("numbers_missing", "attributes", False, "share of them that it lacks"),
    Feature("other_amount", "attributes", False, "share of its units with another number there"),
    Feature("unwanted", "attributes", False, "share of 'without ...' words that the text has"),
    Feature("without", "attributes", False, "share of them that it says it is without, too"),
    Feature("same_type", "attributes", False, "1 if query and title have one product type"),
    Feature("type_named", "attributes", False, "1 if the title's product type is in the query"),
    Feature("prf_mean", "prf", False, "mean cosine of the item to the query's 50 nearest others"),
    Feature("prf_max", "prf", False, "greatest of these"),
    Feature("voted_mean", "votes", False, "mean cosine to items that suit near training queries"),
    Feature("voted_max", "votes", False, "greatest of these"),
    Feature("near_query_cosine", "votes", False, "cosine of the nearest training query"),
)
COLUMNS_WITHOUT_SIDS = {
    group: tuple(feature.name for feature in WITHOUT_SIDS if feature.group == group)
    for group in (*dict.fromkeys(feature.group for feature in WITHOUT_SIDS), NUMERIC)
}
GROUPS = (*COLUMNS_WITHOUT_SIDS, *prefix_match.GROUPS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """Features of pairs.

    Attributes:
      names: one per column, no name twice.
      groups: the group of each column.
      values: float32 `[pair, feature]`, finite.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    values: Float[np.ndarray, "pair feature"]

    def rows(self, kept: np.ndarray) -> FeatureTable:
        """Returns the pairs that a mask, or row numbers, keep."""
        return dataclasses.replace(self, values=self.values[kept])


def join(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Returns the columns of several tables of the same pairs side by side."""
    return FeatureTable(
        names=sum((table.names for table in tables), ()),
        groups=sum((table.groups for table in tables), ()),
        values=np.concatenate([table.values for table in tables], axis=1),
    )


def select(table: FeatureTable, *, groups: Sequence[str]) -> FeatureTable:
    """Returns the columns of the groups named, in the table's order."""
    kept = [column for column, group in enumerate(table.groups) if group in groups]
    return FeatureTable(
        names=tuple(table.names[column] for column in kept),
        groups=tuple(table.groups[column] for column in kept),
        values=table.values[:, kept],
    )


def columns_named(table: FeatureTable, names: Sequence[str]) -> Float[np.ndarray, "pair feature"]:
    """Returns the values of the columns named, in that order.

    Raises:
      InputError: the table lacks one.
    """
    if table.names == tuple(names):
        return table.values
    place = {name: column for column, name in enumerate(table.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise InputError(
            f"the features {', '.join(missing)}, which the head was fitted to, are not among "
            f"{', '.join(table.names)}; give it the feature groups of its rung"
        )
    return table.values[:, [place[name] for name in names]]
