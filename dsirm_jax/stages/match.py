"""Stage `match`: how far the SIDs of queries and items agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import encode, features, generate, prepare, quantize

if TYPE_CHECKING:
    from dsirm_jax.relevance.features.group import Group


def run(
    layout: Layout, *, beams: tuple[int | str, ...] = (), extra_groups: tuple[Group, ...] = ()
) -> None:
    """SIDs of queries and items -> how far they agree, in features of judged pairs.

    Args:
      layout: of the run, half and rung.
      beams: variants of the groups that read beams: columns `NAME@5` in groups `GROUP@5` look at
        the first 5 beams alone, and those of `@own`, "own", at the query's own codes in place of
        the generator's.
      extra_groups: groups of features of your own that read SIDs, see `features.group.Group`.
    """
    from dsirm_jax.data.pairs import read_judgements
    from dsirm_jax.relevance import groups, tables, variants
    from dsirm_jax.relevance.compute import match_features
    from dsirm_jax.relevance.features.group import BEAMS, NEIGHBOUR_SIDS
    from dsirm_jax.sids.codes import read_version

    wanted = groups.reading(BEAMS, NEIGHBOUR_SIDS, extra=extra_groups)
    pairs = read_judgements(layout.judgements, "query_index", "item_index")
    rung = tables.read_rung(
        sids=layout.sids,
        health=layout.health,
        query_sids=layout.query_sids,
        pair_log_probs=layout.pair_log_probs,
    )
    codes = None
    if variants.OWN in beams:
        vectors = tables.read_query_vectors(layout, scratch=layout.stage("match"))
        codes = own_codes(layout.quantizer, vectors)
    table = match_features(
        query_index=pairs["query_index"],
        item_index=pairs["item_index"],
        **rung,
        surroundings=tables.read_surroundings(layout.surroundings),
        groups=wanted,
        variant_groups=groups.reading(BEAMS),
        tags=beams,
        own_codes=codes,
    )
    tables.write_features(
        layout.sid_features, table, pairs=pairs, sid_version=read_version(layout.sids)
    )


def own_codes(
    quantizer: Path, vectors: Float[np.ndarray, "query dim"]
) -> Int[np.ndarray, "query level"]:
    """Returns the codes that a quantizer gives to queries as if they were items.

    Args:
      quantizer: `quantize/quantizer.safetensors`.
      vectors: of the queries.
    """
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_vectors

    return assign_vectors(fitted=quantizers.load(quantizer), vectors=vectors).codes


def check(bindings: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError where a variant or a group of a user's own cannot be computed.

    Args:
      bindings: of this stage and of `generate`, by the name of the stage.
    """
    from dsirm_jax.relevance import groups, variants
    from dsirm_jax.relevance.features.group import BEAMS, NEIGHBOUR_SIDS

    beams = bindings["generate"].get("beams")
    variants.check_tags(bindings["match"].get("beams", ()), beams=beams)
    groups.reading(BEAMS, NEIGHBOUR_SIDS, extra=bindings["match"].get("extra_groups", ()))


STAGE = Stage(
    name="match",
    function=run,
    check=check,
    needs=(prepare.STAGE, encode.STAGE, quantize.STAGE, generate.STAGE, features.STAGE),
    per_half=True,
    per_rung=True,
)
