"""Stages `opensearch`, `postgres` …: a finished run to the files that an engine loads."""

from __future__ import annotations

import functools

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import generate


def run(layout: Layout, *, engine: str, name: str, vectors: bool) -> None:
    """a finished run -> what an engine loads, see `serving.engines.documents.write_documents`."""
    from dsirm_jax.relevance.tables import read_item_vectors
    from dsirm_jax.serving import engines
    from dsirm_jax.serving.engines.documents import write_documents

    folder = layout.stage(engine)
    write_documents(
        layout,
        folder,
        engine=engines.named(engine),
        name=name,
        vectors=read_item_vectors(layout, scratch=folder) if vectors else None,
    )


@functools.cache
def stage_of(engine: str) -> Stage:
    """Returns the stage that writes for an engine, in a folder of its name."""
    return Stage(
        name=engine,
        function=functools.partial(run, engine=engine),
        needs=(generate.STAGE,),
        alone=True,
        reads_run=True,
    )
