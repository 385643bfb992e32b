"""Stage `match`: how far the SIDs of queries and items agree."""

from __future__ import annotations

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import encode, features, generate, prepare, quantize


def run(layout: Layout, *, beams: tuple[int | str, ...] = ()) -> None:
    """SIDs of queries and items -> how far they agree, in features of judged pairs.

    Further columns, `NAME@5` in groups `GROUP@5`, look at the first 5 beams alone, and those of
    `@own` at the query's own codes in place of the generator's.
    """
    from dsirm_jax.data.pairs import read_judgements
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_vectors
    from dsirm_jax.relevance import tables, variants
    from dsirm_jax.relevance.features import with_sids
    from dsirm_jax.relevance.schema import join
    from dsirm_jax.sids.codes import read_version
    from dsirm_jax.sids.prefix_match import GROUPS

    pairs = read_judgements(layout.judgements, "query_index", "item_index")
    near = tables.read_surroundings(layout.surroundings)
    given = tables.read_rung(
        sids=layout.sids,
        health=layout.health,
        query_sids=layout.query_sids,
        pair_log_probs=layout.pair_log_probs,
    )
    found = [with_sids(**pairs, **given, near=near, groups=GROUPS)]
    for tag in beams:
        if tag == variants.OWN:
            fitted = quantizers.load(layout.quantizer)
            vectors = tables.read_dense_vectors(layout, scratch=layout.stage("match"))
            codes = assign_vectors(fitted=fitted, vectors=vectors["query_vectors"]).codes
            other = given | {
                "beams": variants.own_beam(codes),
                "pair_log_probs": variants.own_log_probs(
                    codes[pairs["query_index"]], given["sids"][pairs["item_index"]]
                ),
            }
        else:
            other = given | {"beams": variants.first_beams(given["beams"], most=tag)}
        table = with_sids(**pairs, **other, near=near, groups=variants.GROUPS)
        found.append(variants.tagged(table, tag))
    tables.write_features(
        layout.sid_features, join(found), pairs=pairs, sid_version=read_version(layout.sids)
    )


STAGE = Stage(
    name="match",
    function=run,
    needs=(prepare.STAGE, encode.STAGE, quantize.STAGE, generate.STAGE, features.STAGE),
    per_half=True,
    per_rung=True,
)
