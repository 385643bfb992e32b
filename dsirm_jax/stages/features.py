"""Stage `features`: what is known of judged pairs without SIDs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from dsirm_jax.relevance.nearest.settings import DEFAULT, ListSettings
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import encode, prepare

if TYPE_CHECKING:
    from dsirm_jax.relevance.features.group import Group


def run(
    layout: Layout,
    *,
    language: str | None = None,
    type_rules: int = 1,
    extra_groups: tuple[Group, ...] = (),
    control_groups: tuple[str, ...] = (),
    lists: ListSettings = DEFAULT,
) -> None:
    """texts and dense vectors -> the features of judged pairs that know nothing of SIDs.

    Args:
      layout: of the run.
      language: of titles and queries, ISO 639-1; None where it is not known.
      type_rules: version of the rules for product types, see `product_type.tag_of`.
      extra_groups: groups of features of your own that read pairs, see `features.group.Group`.
      control_groups: names of groups that only controls of the ladder have, such as 'judged'.
      lists: from how many items or training queries on the nearest are found by lists, and how
        well.
    """
    import pyarrow.parquet as pq
    from threadpoolctl import threadpool_limits

    from dsirm_jax.data import vocabulary
    from dsirm_jax.data.identity import identity_in
    from dsirm_jax.data.pairs import read_judgements
    from dsirm_jax.data.product_type import tag_of
    from dsirm_jax.relevance import groups, tables
    from dsirm_jax.relevance.compute import pair_context, pair_features
    from dsirm_jax.relevance.features.group import PAIRS
    from dsirm_jax.relevance.nearest.build import made
    from dsirm_jax.relevance.neighbours import find_surroundings

    controls = groups.controls_named(control_groups)
    wanted = groups.reading(PAIRS, extra=(*extra_groups, *controls))
    pairs = read_judgements(layout.judgements, "query_index", "item_index")
    queries = pq.read_table(layout.queries, columns=["query"])["query"].to_pylist()
    vectors = tables.read_dense_vectors(layout, scratch=layout.stage("features"))
    train_pairs, relevant = voting_pairs(layout.judgements)
    surroundings = find_surroundings(
        query_index=pairs["query_index"],
        **vectors,
        train_pairs=train_pairs,
        relevant=relevant,
        identity=identity_in(layout.queries).numbers(queries),
        search_of=functools.partial(
            made,
            folder=layout.stage("features"),
            settings=lists,
            queries=vectors["query_vectors"],
        ),
    )
    tables.write_surroundings(layout.surroundings, surroundings)
    context = pair_context(
        **pairs,
        **vectors,
        surroundings=surroundings,
        queries=queries,
        items=tables.read_item_texts(layout.items),
        numbers=tables.read_numbers(layout.items),
        processor=vocabulary.processor(layout.vocabulary),
        language=tag_of(language, rules=type_rules),
    )
    # Products are of the items of a query: threads would wait for each other.
    with threadpool_limits(1, user_api="blas"):
        found = pair_features(context, groups=wanted)
    tables.write_features(layout.features, found, pairs=pairs)


def type_language(bindings: Mapping[str, Any]) -> str | None:
    """Returns the language of titles as `product_type` wants it, of bindings of this stage."""
    from dsirm_jax.data.product_type import tag_of

    return tag_of(bindings.get("language"), rules=bindings.get("type_rules", 1))


def voting_pairs(
    judgements: Path,
) -> tuple[Int[np.ndarray, "pair 2"], Bool[np.ndarray, " pair"]]:
    """Reads the judgements that vote, of every split but `test`, and whether each is relevant.

    Args:
      judgements: `prepare/judgements.parquet`.

    Returns:
      int64 `[pair, 2]`, query_index and item_index; and bool `[pair]`.
    """
    from dsirm_jax.data.pairs import judged_pairs
    from dsirm_jax.data.schema import VOTING

    return judged_pairs(judgements, splits=VOTING)


def check(bindings: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError where a group of a user's own cannot be computed.

    It does too where there are no rules of the version that is bound.

    Args:
      bindings: of this stage, by its name.
    """
    from dsirm_jax.data.product_type import LATEST_RULES
    from dsirm_jax.io.checks import check_number, check_whole
    from dsirm_jax.relevance import groups
    from dsirm_jax.relevance.features.group import PAIRS

    bound = bindings["features"]
    rules = bound.get("type_rules", 1)
    check_whole("features.run.type_rules", rules, least=1)
    check_number("features.run.type_rules", rules, most=LATEST_RULES)
    controls = groups.controls_named(bound.get("control_groups", ()))
    groups.reading(PAIRS, extra=(*bound.get("extra_groups", ()), *controls))


STAGE = Stage(
    name="features",
    function=run,
    version=2,
    check=check,
    needs=(prepare.STAGE, encode.STAGE),
    per_half=True,
)
