"""Stage `encode`: texts to dense vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import prepare

if TYPE_CHECKING:
    from dsirm_jax.encoder.kinds.protocol import DenseEncoder


def run(
    layout: Layout, *, seed: int, encoder: DenseEncoder, previous: Layout | None = None
) -> None:
    """texts -> dense query and item vectors, by an encoder or from tables of your own."""
    from dsirm_jax.encoder.kinds.protocol import RunTables

    tables = RunTables(
        items=layout.items,
        queries=layout.queries,
        item_vectors=layout.item_vectors,
        query_vectors=layout.query_vectors,
        judgements=layout.judgements,
        tfds_dir=layout.tfds,
        vocabulary=layout.vocabulary,
    )
    start = previous.stage("encode") if previous else None
    encoder.fit(tables, directory=layout.stage("encode"), seed=seed, start=start)


STAGE = Stage(name="encode", function=run, needs=(prepare.STAGE,), per_half=True)
