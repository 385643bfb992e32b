"""Stage `features`: what is known of judged pairs without SIDs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import encode, prepare


def run(layout: Layout, *, language: str | None = None) -> None:
    """texts and dense vectors -> the features of judged pairs that know nothing of SIDs."""
    write_features(layout, voting=layout.judgements, language=language)


def write_features(layout: Layout, *, voting: Path, language: str | None) -> None:
    """Does what `features` does, where the judgements given vote, but those of test queries."""
    import pyarrow.parquet as pq

    from dsirm_jax.data import vocabulary
    from dsirm_jax.data.pairs import judged_pairs, read_judgements
    from dsirm_jax.data.schema import VOTING
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.digests import Reading, read_catalogue, read_items, read_queries
    from dsirm_jax.relevance.features import Texts, filled, surroundings, without_sids
    from dsirm_jax.relevance.schema import COLUMNS_WITHOUT_SIDS

    queries = pq.read_table(layout.queries, columns=["query"])["query"].to_pylist()
    pairs = read_judgements(layout.judgements, "query_index", "item_index")
    vectors = tables.read_dense_vectors(layout, scratch=layout.stage("features"))
    train_pairs, relevant = judged_pairs(voting, splits=VOTING)
    near = surroundings(
        query_index=pairs["query_index"], **vectors, train_pairs=train_pairs, relevant=relevant
    )
    tables.write_surroundings(layout.surroundings, near)
    processor = vocabulary.processor(layout.vocabulary)
    wanted, item_row = np.unique(pairs["item_index"], return_inverse=True)
    catalogue, texts = read_catalogue(
        tables.read_item_texts(layout.items), wanted=wanted, processor=processor
    )
    reading = Reading(processor, catalogue.names, language)
    asked = [queries[query] for query in np.unique(pairs["query_index"])]
    table = without_sids(
        **pairs,
        **vectors,
        item_row=item_row,
        groups=tuple(COLUMNS_WITHOUT_SIDS),
        near=near,
        texts=Texts(read_queries(asked, reading), read_items(texts, reading), catalogue.pieces),
        numbers={name: filled(of) for name, of in tables.read_numbers(layout.items).items()},
    )
    tables.write_features(layout.features, table, pairs=pairs)


STAGE = Stage(name="features", function=run, needs=(prepare.STAGE, encode.STAGE), per_half=True)
