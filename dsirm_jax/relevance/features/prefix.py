"""Group `prefix`: how probable the generator finds the item's SID, prefix by prefix."""

from __future__ import annotations

from jaxtyping import Array, Float

from dsirm_jax.relevance.features.group import BEAMS, PER_LEVEL, Column, Group, SidContext
from dsirm_jax.sids.prefix_match import prefix_features


def prefix(context: SidContext) -> Float[Array, "query item column"]:
    """Returns `prefix_match.prefix_features`."""
    return prefix_features(context.queries.beams, *context.items)


GROUP = Group(
    name="prefix",
    order=8,
    reads=BEAMS,
    columns=(
        Column("beam_mass", "sum of P(beam | query) over beams that agree at l", PER_LEVEL),
        Column("beam_rank", "1 / rank of the first beam that agrees at l, 0 if none", PER_LEVEL),
        Column("log_prob", "log P(first l codes of the item | query), at least -30", PER_LEVEL),
        Column("pmi", "log_prob minus log share of items with these first l codes", PER_LEVEL),
        Column("beam_entropy", "entropy in nats of P(beam | query) over the beams"),
    ),
    compute=prefix,
)
