"""Rewards by scores of pairs, such as the relevance head of an earlier run gave."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from dsirm_jax.data.schema import TRAIN
from dsirm_jax.generator.alignment.rewards.reward import PairRewards
from dsirm_jax.io.checks import check_text
from dsirm_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """A pair is worth its score in a table, judged or not.

    `dsirm score` of an earlier run writes such a table, `score/scores.parquet`. Pairs of other
    queries than those of the split `train` are left out, and so are those without a score.

    Attributes:
      path: Parquet with the columns `query`, as `queries.parquet` has it, and `item_id`.
      column: of the scores, from 0 to 1.
    """

    path: str
    column: str = "score"

    def __post_init__(self) -> None:
        check_text("ScoredPairs.path", self.path)
        check_text("ScoredPairs.column", self.column)

    def files(self) -> list[str]:
        """See `Reward.files`."""
        return [self.path]

    def of_pairs(self, *, items: Path, queries: Path, judgements: Path) -> PairRewards:
        """See `Reward.of_pairs`."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        columns = ["query", "item_id", self.column]
        if missing := [name for name in columns if name not in pq.read_schema(self.path).names]:
            raise InputError(
                f"{self.path}: no column {missing[0]!r}; bind ScoredPairs.path to a table of "
                f"`dsirm score`, or ScoredPairs.column to what its scores are called"
            )
        table = pq.read_table(self.path, columns=columns).drop_null()
        known = pq.read_table(queries, columns=["query", "split"])
        ids = pq.read_table(items, columns=["item_id"])["item_id"]
        query = pc.index_in(table["query"], known["query"].combine_chunks()).fill_null(-1)
        item = pc.index_in(table["item_id"], ids.combine_chunks()).fill_null(-1)
        query, item = query.to_numpy(), item.to_numpy()
        score = table[self.column].to_numpy().astype(np.float32)
        if wrong := np.flatnonzero(~((score >= 0) & (score <= 1))).tolist():
            raise InputError(
                f"{self.path}: column {self.column} has {score[wrong[0]]}; scores are from 0 to 1"
            )
        counted = (query >= 0) & (item >= 0) & (score > 0)
        counted &= (known["split"].to_numpy() == TRAIN)[query]
        if not counted.any():
            raise InputError(
                f"{self.path}: no row is a pair of a training query and an item, with a score "
                f"above 0; score pairs of the queries that queries.parquet has as {TRAIN!r}"
            )
        return PairRewards(query[counted], item[counted], score[counted])
