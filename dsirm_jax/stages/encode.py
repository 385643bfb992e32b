"""Stage `encode`: texts to dense vectors."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import prepare
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.encoder.model import Precomputed, Pretrained, TwoTowers


def run(
    layout: Layout,
    *,
    seed: int,
    encoder: TwoTowers | Pretrained | Precomputed,
    previous: Layout | None = None,
) -> None:
    """texts -> dense query and item vectors, by an encoder or from tables of your own."""
    from dsirm_jax.data.vectors import copy_vectors
    from dsirm_jax.encoder import pretrained, towers
    from dsirm_jax.encoder.model import Precomputed, Pretrained

    if isinstance(encoder, Precomputed):
        for given, table, id_column, pattern in (
            (encoder.items, layout.items, "item_id", layout.item_vectors),
            (encoder.queries, layout.queries, "query", layout.query_vectors),
        ):
            copy = functools.partial(copy_vectors, given, table=table, id_column=id_column)
            processes.first(functools.partial(copy, pattern=pattern))
        return
    trained = {
        "config": encoder,
        "items": layout.items,
        "queries": layout.queries,
        "judgements": layout.judgements,
        "item_vectors": layout.item_vectors,
        "query_vectors": layout.query_vectors,
        "directory": layout.stage("encode"),
        "seed": seed,
        "start": previous.stage("encode") if previous else None,
    }
    if isinstance(encoder, Pretrained):
        pretrained.encode_tables(**trained)
    else:
        towers.encode_tables(**trained, tfds_dir=layout.tfds, pieces=layout.vocabulary)


STAGE = Stage(name="encode", function=run, needs=(prepare.STAGE,), per_half=True)
