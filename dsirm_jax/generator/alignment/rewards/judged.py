"""Rewards by judgements."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dsirm_jax.data.pairs import read_judgements
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.generator.alignment.rewards.reward import PairRewards
from dsirm_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedGains:
    """A pair is worth its gain, in units of the largest one of a training query."""

    def files(self) -> list[str]:
        """See `Reward.files`."""
        return []

    def of_pairs(self, *, items: Path, queries: Path, judgements: Path) -> PairRewards:
        """See `Reward.of_pairs`."""
        names = ("query_index", "item_index", "gain", "split")
        query, item, gain, split = read_judgements(judgements, *names).values()
        counted = (split == TRAIN) & (gain > 0)
        if not counted.any():
            raise InputError(f"{judgements}: no judgement of a training query has a gain above 0")
        most = gain[counted].max()
        return PairRewards(query[counted], item[counted], (gain[counted] / most).astype("f4"))
