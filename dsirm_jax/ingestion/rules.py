"""What a user binds of how rows become tables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from dsirm_jax.data.identity import QueryIdentity
from dsirm_jax.data.item_text import TITLE, ItemText
from dsirm_jax.ingestion.grading.clicks import ClickModel
from dsirm_jax.ingestion.grading.labels import Labels, labels_of
from dsirm_jax.ingestion.joins import twins
from dsirm_jax.ingestion.joins.pair_labels import AGGREGATIONS
from dsirm_jax.io.checks import check_choice, check_number
from dsirm_jax.io.errors import InputError

COPIES = ("first", "last", "error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """The bindings of `prepare.run` that decide on rows, see `prepare.prepare`."""

    label_gains: Mapping[Any, float] | Labels
    relevant_labels: Sequence[Any]
    judgement_aggregation: str
    clicks: ClickModel
    test_share: float
    head_share: float
    fold: tuple[int, int] | None
    exchanged: bool
    identity: QueryIdentity
    parted_queries: str
    max_rejected_share: float
    missing: Sequence[str]
    item_copies: str | None
    seed: int
    item_text: ItemText = TITLE

    def __post_init__(self) -> None:
        choices = {
            "judgement_aggregation": AGGREGATIONS,
            "item_copies": (*COPIES, None),
            "parted_queries": twins.PARTED,
        }
        for name, allowed in choices.items():
            check_choice(f"prepare.run.{name}", getattr(self, name), allowed)
        for name in ("test_share", "head_share"):
            check_number(f"prepare.run.{name}", getattr(self, name), above=0, below=1)
        check_number("prepare.run.max_rejected_share", self.max_rejected_share, least=0, most=1)
        kinds: dict[str, tuple[type, str]] = {
            "clicks": (ClickModel, "@clicks.ClickModel()"),
            "identity": (QueryIdentity, "@identity.QueryIdentity()"),
            "item_text": (ItemText, "@item_text.ItemText()"),
        }
        for name, (kind, such) in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise InputError(
                    f"gin binding prepare.run.{name} is {getattr(self, name)!r}; bind {such}"
                )
        missing: Any = self.missing
        if isinstance(missing, str) or not all(isinstance(text, str) for text in missing):
            raise InputError(
                f"gin binding prepare.run.missing is {missing!r}; bind texts, such as "
                "('NULL', 'N/A')"
            )
        if self.fold is not None:
            _check_fold(self.fold)
        self.clicks.steps(self.labels)

    @functools.cached_property
    def labels(self) -> Labels:
        """The labels that there are."""
        return labels_of(self.label_gains, self.relevant_labels)


def _check_fold(fold: tuple[int, int]) -> None:
    whole = isinstance(fold, Sequence) and all(
        isinstance(number, int) and not isinstance(number, bool) for number in fold
    )
    if not whole or len(fold) != 2 or not 0 <= fold[0] < fold[1] or fold[1] < 2:
        raise InputError(
            f"gin binding prepare.run.fold is {fold!r}; bind (k, n), n at least 2 and k from 0 to "
            "n - 1"
        )
