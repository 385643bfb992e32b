"""Stage `prepare`: tables in, one documented schema and a TFDS dataset out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsirm_jax.ingestion.validation.missing import MISSING
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage

if TYPE_CHECKING:
    from dsirm_jax.data.identity import QueryIdentity
    from dsirm_jax.data.item_text import ItemText
    from dsirm_jax.ingestion.grading.clicks import ClickModel
    from dsirm_jax.ingestion.grading.labels import Labels
    from dsirm_jax.ingestion.readers.reader import Reader


def run(
    layout: Layout,
    *,
    seed: int,
    source: Reader,
    label_gains: dict[str | float, float] | Labels,
    relevant_labels: tuple[str | float, ...],
    vocabulary_size: int,
    head_share: float,
    test_share: float,
    max_rejected_share: float,
    missing: tuple[str, ...] = MISSING,
    item_copies: str | None = None,
    item_text: ItemText | None = None,
    judgement_aggregation: str = "majority",
    clicks: ClickModel | None = None,
    fold: tuple[int, int] | None = None,
    exchanged: bool = False,
    identity: QueryIdentity | None = None,
    parted_queries: str = "merge",
    vocabulary: str | None = None,
    engine: str | None = None,
    memory_limit: str = "1GB",
    workers: int | None = None,
    beam_runner: str | None = None,
    beam_options: tuple[str, ...] = (),
    previous: Layout | None = None,
) -> None:
    """tables -> validated, joined and split tables, a vocabulary and a TFDS dataset."""
    from dsirm_jax.data import dataset
    from dsirm_jax.data.identity import PLAIN
    from dsirm_jax.data.item_text import TITLE
    from dsirm_jax.ingestion.prepare import prepare as prepare_tables

    if beam_runner:
        dataset.beam_pipeline_options(beam_options)  # fails at once without Beam
    prepare_tables(
        source=source,
        out_dir=layout.stage("prepare"),
        label_gains=label_gains,
        relevant_labels=relevant_labels,
        judgement_aggregation=judgement_aggregation,
        clicks=clicks,
        vocabulary_size=vocabulary_size,
        vocabulary=str(previous.vocabulary) if previous and not vocabulary else vocabulary,
        head_share=head_share,
        test_share=test_share,
        fold=fold,
        exchanged=exchanged,
        identity=PLAIN if identity is None else identity,
        parted_queries=parted_queries,
        max_rejected_share=max_rejected_share,
        missing=missing,
        item_copies=item_copies,
        item_text=TITLE if item_text is None else item_text,
        engine=engine,
        memory_limit=memory_limit,
        workers=workers,
        seed=seed,
    )
    dataset.write_dataset(
        prepare_dir=layout.stage("prepare"),
        data_dir=layout.tfds,
        beam_runner=beam_runner,
        beam_options=beam_options,
    )


STAGE = Stage(
    name="prepare",
    version=2,
    function=run,
    execution_only=("engine", "memory_limit", "workers", "beam_runner", "beam_options"),
    paths=("vocabulary",),
    alone=True,
    per_half=True,
)
