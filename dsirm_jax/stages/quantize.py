"""Stage `quantize`: dense vectors to semantic identifiers."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from typing import TYPE_CHECKING

from dsirm_jax.io.files import write_json
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import encode, prepare
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.quantizer.codebooks import Upkeep
    from dsirm_jax.quantizer.config import QuantizerConfig
    from dsirm_jax.quantizer.losses import QuantizerObjective
    from dsirm_jax.training.settings import Training

log = logging.getLogger(__name__)


def run(
    layout: Layout,
    *,
    seed: int,
    config: QuantizerConfig,
    objective: QuantizerObjective,
    upkeep: Upkeep,
    training: Training,
    previous: Layout | None = None,
    stay: float = 0.1,
) -> None:
    """dense vectors -> a semantic identifier for every item, codebooks and their health."""
    import pyarrow.parquet as pq

    from dsirm_jax.data.vectors import shards
    from dsirm_jax.io.checks import check_number
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_shards, join_sids
    from dsirm_jax.quantizer.fitting import train
    from dsirm_jax.quantizer.health import check_carried, crowded, sid_health
    from dsirm_jax.quantizer.scaling import sample_rows
    from dsirm_jax.quantizer.training_tables import read_training_items
    from dsirm_jax.sids.codes import aligned_sids, read_sids

    check_number("quantize.run.stay", stay, least=0, below=math.inf)
    start = quantizers.load(previous.quantizer) if previous else None
    if start:
        # First codes go on to mean what they did, however later rules read titles.
        config = dataclasses.replace(
            config,
            title_language=start.config.title_language,
            title_rules=start.config.title_rules,
        )
    frozen = not (training.epochs and config.kind.continues)
    items = read_training_items(
        items=layout.items,
        queries=layout.queries,
        judgements=layout.judgements,
        item_vectors=layout.item_vectors,
        query_vectors=layout.query_vectors,
        config=config,
        scratch=layout.stage("quantize"),
        known=start.names if start else (),
        only_known=start is not None and (frozen or not start.names),
        types=start.title_types if start and start.names and start.title_types.language else None,
        attributes=objective.attributes if objective.prediction else (),
    )
    fitted = train(
        config=config,
        objective=objective,
        upkeep=upkeep,
        training=training,
        items=items,
        directory=layout.stage("quantize"),
        seed=seed,
        start=start,
    )
    quantizers.save(layout.quantizer, fitted)
    before = None
    if previous and start:
        ids = pq.read_table(layout.items, columns=["item_id"])["item_id"]
        before = aligned_sids(previous.sids, item_ids=ids, version=start.version)
    written = assign_shards(
        fitted=fitted,
        vectors=shards(layout.item_vectors),
        pattern=layout.sid_shards,
        pinned=items.pinned,
        previous=before,
        stay=stay,
    )
    join = functools.partial(join_sids, sizes=fitted.sizes, bucket_cap=config.bucket_cap)
    processes.first(functools.partial(join, written, into=layout.sids))
    table = read_sids(layout.sids)
    health = sid_health(
        fitted=fitted,
        fitted_to=items,
        table=table,
        items=layout.items,
        judgements=layout.judgements,
        before=before,
    )
    write_json(layout.health, health)
    if hint := crowded(health, sizes=config.codebook_sizes, pinned=bool(fitted.names)):
        log.warning("%s: %s", layout.sids, hint)
    sample = sample_rows(len(items.items), seed=seed)
    check_carried(
        table.sids[sample],
        table.errors[sample],
        vectors=items.items[sample],
        fitted=fitted,
        where=str(layout.sids),
    )


STAGE = Stage(
    name="quantize",
    function=run,
    needs=(prepare.STAGE, encode.STAGE),
    per_half=True,
    per_rung=True,
)
