"""Stage `assign`: SIDs of further items, from the quantizer as it is."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import quantize
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.data.vectors import VectorFiles


def run(layout: Layout, *, vectors: VectorFiles) -> None:
    """dense vectors of further items -> their SIDs, from the quantizer as it is."""
    from dsirm_jax.data.vectors import read_ids, shards
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_shards, join_sids
    from dsirm_jax.quantizer.further_items import check_fit, pinned_codes

    fitted = quantizers.load(layout.quantizer)
    files = shards(vectors.pattern)
    ids = read_ids(files, id_column="item_id")
    written = assign_shards(
        fitted=fitted,
        vectors=files,
        pattern=layout.stage("assign") / "sids-*.parquet",
        item_ids=ids,
        pinned=pinned_codes(files, fitted=fitted, items=layout.items),
    )
    join = functools.partial(join_sids, sizes=fitted.sizes, bucket_cap=fitted.config.bucket_cap)
    processes.first(functools.partial(join, written, into=layout.assigned))
    check_fit(
        files, fitted=fitted, assigned=layout.assigned, health=layout.health, sids=layout.sids
    )


STAGE = Stage(name="assign", function=run, needs=(quantize.STAGE,), reads_run=True)
