"""Stage `match`: how far the SIDs of queries and items agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_vectors
    from dsirm_jax.relevance import groups, tables, variants
    from dsirm_jax.relevance.compute import rung_features
    from dsirm_jax.relevance.features.group import BEAMS, NEIGHBOUR_SIDS
    from dsirm_jax.relevance.schema import join
    from dsirm_jax.sids.codes import read_version

    wanted = groups.reading(BEAMS, NEIGHBOUR_SIDS, extra=extra_groups)
    pairs = read_judgements(layout.judgements, "query_index", "item_index")
    surroundings = tables.read_surroundings(layout.surroundings)
    rung = tables.read_rung(
        sids=layout.sids,
        health=layout.health,
        query_sids=layout.query_sids,
        pair_log_probs=layout.pair_log_probs,
    )
    parts = [rung_features(**pairs, **rung, surroundings=surroundings, groups=wanted)]
    for tag in beams:
        if tag == variants.OWN:
            fitted = quantizers.load(layout.quantizer)
            vectors = tables.read_dense_vectors(layout, scratch=layout.stage("match"))
            codes = assign_vectors(fitted=fitted, vectors=vectors["query_vectors"]).codes
            other = rung | {
                "beams": variants.own_beam(codes),
                "pair_log_probs": variants.own_log_probs(
                    codes[pairs["query_index"]], rung["sids"][pairs["item_index"]]
                ),
            }
        else:
            other = rung | {"beams": variants.first_beams(rung["beams"], most=tag)}
        table = rung_features(
            **pairs, **other, surroundings=surroundings, groups=groups.reading(BEAMS)
        )
        parts.append(variants.tagged(table, tag))
    tables.write_features(
        layout.sid_features, join(parts), pairs=pairs, sid_version=read_version(layout.sids)
    )


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
