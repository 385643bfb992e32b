"""Group `paper_match`: the paper's feature, how deep the item's SID agrees with any beam."""

from __future__ import annotations

from jaxtyping import Array, Float

from dsirm_jax.relevance.features.group import BEAMS, Column, Group, SidContext
from dsirm_jax.sids.prefix_match import match_depth


def paper_match(context: SidContext) -> Float[Array, "query item 1"]:
    """Returns `prefix_match.match_depth`."""
    return match_depth(context.queries.beams, context.items.sids)


GROUP = Group(
    name="paper_match",
    order=7,
    reads=BEAMS,
    columns=(Column("match_depth", "2^(l - L) at the deepest agreement l, 0 if none"),),
    compute=paper_match,
)
