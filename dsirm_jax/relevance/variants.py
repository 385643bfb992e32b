"""Other SIDs for a query than all the beams of its generator, for rungs that compare them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.sids.prefix_match import MIN_LOG_PROB, Beams, agreement

OWN = "own"


def check_tags(tags: Sequence[int | str], *, beams: int | None) -> None:
    """Raises InputError where a variant is neither "own" nor some of the generator's beams.

    Args:
      tags: as in `match.run.beams`.
      beams: that the generator writes; None where that is not known.
    """
    for tag in tags:
        some = isinstance(tag, int) and not isinstance(tag, bool) and 1 <= tag <= (beams or tag)
        if tag != OWN and not some:
            raise InputError(
                f"gin binding match.run.beams has {tag!r}; bind {OWN!r} and numbers from 1 to "
                f"generate.run.beams{'' if beams is None else f', {beams}'}"
            )
    if len(set(tags)) < len(tags):
        raise InputError(f"gin binding match.run.beams is {tags!r}; bind each once")


def first_beams(beams: Beams, *, most: int) -> Beams:
    """Returns the first beams of every query."""
    return Beams(*(part[:, :most] for part in beams))


def own_beam(codes: Int[np.ndarray, "query level"]) -> Beams:
    """Returns the query's own codes as its only beam, and a certain one."""
    queries = len(codes)
    return Beams(
        sids=codes[:, None],
        log_probs=np.zeros((queries, 1), np.float32),
        valid=np.ones((queries, 1), bool),
    )


def own_log_probs(
    codes: Int[np.ndarray, "pair level"], sids: Int[np.ndarray, "pair level"]
) -> Float[np.ndarray, "pair level"]:
    """Returns log P(first l codes of the item) under `own_beam`: 0, or the least there is.

    Args:
      codes: the query's own, of each pair.
      sids: the item's.
    """
    agrees = np.asarray(agreement(codes[:, None], sids[:, None]))[..., 0, 0]
    return np.where(agrees, 0.0, MIN_LOG_PROB).astype(np.float32)


def tagged_name(name: str, tag: int | str) -> str:
    """Returns what a column or group is called with other SIDs, e.g. `prefix@5`."""
    return f"{name}@{tag}"


def tagged(table: FeatureTable, tag: int | str) -> FeatureTable:
    """Returns the table with `tagged_name`s of its columns and groups."""
    return dataclasses.replace(
        table,
        names=tuple(tagged_name(name, tag) for name in table.names),
        groups=tuple(tagged_name(group, tag) for group in table.groups),
    )
