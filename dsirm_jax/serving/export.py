"""A finished run to the bundle that serves it."""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.data.identity import identity_in
from dsirm_jax.data.item_text import item_text_in
from dsirm_jax.data.schema import ITEMS, VOTING, number_columns
from dsirm_jax.io.checksums import checksums
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import groups
from dsirm_jax.relevance.features.group import PAIRS
from dsirm_jax.relevance.nearest import lists, search
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.neighbours import Judged, voters
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.run.record import finished_record
from dsirm_jax.serving.bundle import catalogue, item_parts, models
from dsirm_jax.serving.bundle import contents as bundle
from dsirm_jax.serving.bundle import manifest as manifests
from dsirm_jax.serving.bundle.cached import Cached
from dsirm_jax.serving.bundle.catalogue import Voters
from dsirm_jax.serving.bundle.models import Models
from dsirm_jax.serving.bundle.stored_items import STORED_COLUMNS
from dsirm_jax.serving.card.card import write_card
from dsirm_jax.serving.formats import onnx_head, portable, saved_model, stablehlo, xgboost_head
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.prefix_match import Beams

if TYPE_CHECKING:
    import pyarrow as pa

    from dsirm_jax.encoder.kinds.protocol import DenseEncoder, FittedEncoder
    from dsirm_jax.relevance.fitted import FittedHead

log = logging.getLogger(__name__)
SERVED_STAGES = ("prepare", "encode", "quantize", "generate", "features", "match", "relevance")


def export(
    layout: Layout,
    *,
    rungs: dict[str, tuple[str, ...]],
    encoder: DenseEncoder,
    beams: int,
    language: str | None,
    crossfit: bool,
    title: str,
    show_queries: bool = False,
) -> None:
    """a finished run -> a bundle: one folder that serves it, see docs/serving.md.

    Args:
      layout: the run.
      rungs: feature groups of each rung, as in `relevance.run`.
      encoder: that of the run.
      beams: SIDs that the generator writes for a query.
      language: as in `features.run`.
      crossfit: whether the run is a cross-fit, whose two halves no bundle can hold.
      title: of the model card.
      show_queries: whether a server of the bundle may show anybody some of the run's queries.

    Raises:
      InputError: the run is a cross-fit, or has no full model or one that cannot be served.
    """
    from dsirm_jax.data import vocabulary
    from dsirm_jax.data.vocabularies import folder
    from dsirm_jax.generator import fitted as generators
    from dsirm_jax.generator.architectures import description
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance import tables

    check_servable(rungs, crossfit=crossfit)
    path, model = layout.bundle, layout.bundle / bundle.MODEL
    shutil.rmtree(path, ignore_errors=True)  # of a run that was interrupted
    model.mkdir(parents=True)
    generator, trie, sids = generators.load_with_sids(layout.generator, sids=layout.sids)
    settings, fitted_encoder = read_encoder(layout, encoder=encoder)
    served = {manifests.FULL: FULL}
    if (dense := dense_rung(rungs)) is not None:
        served[manifests.DENSE_ONLY] = dense
    fitted = {name: heads.load(layout.head(rung)) for name, rung in served.items()}
    processor = vocabulary.processor(layout.vocabulary)
    own = layout.generator_vocabulary if layout.generator_vocabulary.is_dir() else None
    applied = Models(
        encoder=fitted_encoder,
        generator=generator,
        heads=fitted,
        vocabulary=processor,
        generators_own=None if own is None else folder.read(own),
    )
    models.write_models(model, applied, own_vocabulary=own)
    quantizer = quantizers.load(layout.quantizer)
    quantizers.save(model / models.QUANTIZER, quantizer)
    identity = identity_in(layout.queries)
    forms, levels = tries.forms(trie), len(generator.config.sid_sizes)
    extras = _extras(layout.items)
    numbers = tuple(number_columns(extras))
    manifest = manifests.Manifest(
        packages=manifests.package_versions(),
        programs=portable.described(),
        sid_version=generator.sid_version,
        stages={stage: finished_record(layout.stage(stage)).identity for stage in SERVED_STAGES},
        settings=manifests.BundleSettings(
            encoder=settings,
            generator=description.describe_architecture(generator.config),
            max_pieces=generator.max_pieces,
            prompt=generator.prompt,
            own_vocabulary=own is not None,
            beams=beams,
            language=language,
            groups={name: tuple(rungs[rung]) for name, rung in served.items()},
            extras={field.name: str(field.type) for field in extras},
            numbers=numbers,
            types_from_titles=not _has_categories(layout.items),
            trie=forms,
            shows_queries=show_queries,
            identity=identity,
            item_text=item_text_in(layout.items),
        ),
        features={
            name: described_features(head, levels=levels, numbers=numbers)
            for name, head in fitted.items()
        },
        catalogue=1,
        items=len(sids),
        queries=0,
        files={},
    )
    vectors = tables.read_dense_vectors(layout, scratch=layout.stage("export"))
    numbers_of_queries = identity.numbers(_texts(layout))
    texts, cached = _known_queries(
        layout,
        identity=numbers_of_queries,
        applied=applied,
        beams=beams,
        sids=sids,
        **vectors,
    )
    catalogue.write_catalogue(
        path / manifest.catalogue_folder,
        items=item_parts.of_tables(
            functools.partial(_item_rows, layout.items),
            numbers=numbers,
            processor=processor,
            language=language,
        ),
        vectors=catalogue.row_blocks(vectors["item_vectors"]),
        sids=sids,
        trie=trie,
        voters=_voters(layout, vectors=vectors["query_vectors"], identity=numbers_of_queries),
        queries=[(texts, cached)],
        identity=identity,
    )
    for name in (search.ITEMS, search.VOTERS):
        if (file := lists.lists_file(layout.stage("features"), name)).exists():
            shutil.copyfile(file, lists.lists_file(path / manifest.catalogue_folder, name))
    manifest = dataclasses.replace(manifest, queries=len(texts))
    opened = bundle.Bundle(path=path, manifest=manifest)
    programs = stablehlo.programs_of(applied, beams=beams, forms=forms)
    stablehlo.write_programs(model, programs)
    onnx_head.write_heads(model, applied.heads)
    xgboost_head.write_heads(model, applied.heads)
    saved_model.write_saved_model(path / manifest.saved_model_folder, opened, programs=programs)
    write_card(
        path / manifests.CARD,
        layout=layout,
        title=title,
        manifest=manifest,
        applied=applied,
        quantizer=quantizer,
    )
    manifest = dataclasses.replace(manifest, files=checksums(path, [manifests.CARD]))
    bundle.seal_bundle(path, manifest)
    log.info("export: %s items, %s cached queries in %s", len(sids), len(texts), path)


def check_servable(rungs: Mapping[str, Sequence[str]], *, crossfit: bool) -> None:
    """Raises InputError where a run cannot be served."""
    if crossfit:
        raise InputError(
            "Job.crossfit fits all models twice, and a bundle holds one of each: run again with "
            "Job.crossfit = False and another MODEL_DIR, and export that"
        )
    if FULL not in rungs:
        raise InputError(f"relevance.run.rungs has no {FULL!r}, which is what is served")
    groups.served(rungs[FULL], head=FULL)


def dense_rung(rungs: Mapping[str, Sequence[str]]) -> str | None:
    """Returns the rung with the most groups among those that a scorer can compute without SIDs."""
    of_pairs = {group.name for group in groups.reading(PAIRS)}
    sizes = {
        rung: len(names)
        for rung, names in rungs.items()
        if of_pairs.issuperset(names) and rung != FULL
    }
    return max(sizes, key=sizes.__getitem__) if sizes else None


def described_features(
    head: FittedHead, *, levels: int, numbers: Sequence[str]
) -> tuple[manifests.FeatureColumn, ...]:
    """Returns the columns that a head reads, in order.

    Args:
      head: the head.
      levels: of a SID.
      numbers: the user's own columns of numbers.
    """
    known = {
        name: manifests.FeatureColumn(name=name, group=group.name, about=about)
        for group in groups.package_groups().values()
        for name, about in group.described(levels=levels, numbers=numbers).items()
    }
    return tuple(known[column] for column in head.features)


def read_encoder(
    layout: Layout, *, encoder: DenseEncoder
) -> tuple[manifests.EncoderSettings, FittedEncoder | None]:
    """Returns how texts become vectors, for the manifest, and what makes them, if anything does.

    Args:
      layout: the run.
      encoder: that of the run.
    """
    from dsirm_jax.data.vectors import shards, vector_blocks

    fitted = encoder.fitted(directory=layout.stage("encode"), vocabulary=layout.vocabulary)
    if fitted is not None:
        kind = models.encoder_kind(encoder)
        return manifests.EncoderSettings(kind=kind, **fitted.described()), fitted
    (file, *_) = shards(layout.item_vectors)
    _, _, block = next(vector_blocks(file, id_column="item_id", rows=1))
    return manifests.EncoderSettings(kind=models.NONE, dim=block.shape[1]), None


def padded(beams: Beams, *, to: int) -> Beams:
    """Returns beams of `to` SIDs for every query, of which further ones are not valid."""
    missing = ((0, 0), (0, to - beams.valid.shape[1]))
    return Beams(
        sids=np.pad(beams.sids, (*missing, (0, 0)), constant_values=-1),
        log_probs=np.pad(beams.log_probs, missing, constant_values=-np.inf),
        valid=np.pad(beams.valid, missing),
    )


def _extras(items: Path) -> pa.Schema:
    """Returns the user's own columns of items; what JSON has no like of becomes text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kept(type_: pa.DataType) -> pa.DataType:
        kinds = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
        return type_ if any(is_kind(type_) for is_kind in kinds) else pa.string()

    schema = pq.read_schema(items)
    return pa.schema([(f.name, kept(f.type)) for f in schema if f.name not in ITEMS.names])


def _has_categories(items: Path) -> bool:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    return pc.any(pc.is_valid(pq.read_table(items, columns=["category"])["category"])).as_py()


def _item_rows(items: Path) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def cast(column: pa.Array, field: pa.Field) -> pa.Array:
        if pa.types.is_list(column.type) and field.type == pa.string():
            return pc.binary_join(column.cast(pa.list_(pa.string())), ", ")
        return column.cast(field.type)

    extras = _extras(items)
    with pq.ParquetFile(items, pre_buffer=False) as file:
        schema = pa.schema([*(ITEMS.field(name) for name in STORED_COLUMNS), *extras])
        for batch in file.iter_batches(catalogue.ROWS_PER_BLOCK, columns=schema.names):
            columns = [cast(batch.column(field.name), field) for field in schema]
            yield pa.Table.from_arrays(columns, schema=schema)


def _texts(layout: Layout) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(layout.queries, columns=["query"])["query"].to_pylist()


def _known_queries(
    layout: Layout,
    *,
    identity: Int[np.ndarray, " query"],
    applied: Models,
    beams: int,
    sids: Int[np.ndarray, "item level"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
) -> tuple[list[str], Cached]:
    """Returns the run's queries, each in its most frequent spelling, and what is known of them."""
    from dsirm_jax.data.pairs import read_judgements
    from dsirm_jax.relevance import tables
    from dsirm_jax.serving.bundle.known import (
        MOST_SIDS,
        QuerySidPairs,
        known_sids,
        of_beams,
        of_near,
    )

    texts = _texts(layout)
    near = tables.read_surroundings(layout.surroundings)
    item_search = lists.search_in(
        layout.stage("features"),
        search.ITEMS,
        item_vectors,
        otherwise="run `dsirm features` again",
    )
    if len(near.items.row) != len(texts):
        raise InputError(
            f"{layout.surroundings} has {len(near.items.row)} queries and {layout.queries} has "
            f"{len(texts)}; run `dsirm features` again"
        )
    cached = tables.commonest_spellings(layout.queries, identity=identity)
    texts, vectors = [texts[query] for query in cached], query_vectors[cached]
    query_beams = padded(tables.read_beams(layout.query_sids, levels=sids.shape[1]), to=beams)
    query_beams = Beams(*(part[cached] for part in query_beams))
    rows = read_judgements(layout.judgements, "query_index", "item_index")
    row_of = np.empty(len(identity), int)
    row_of[identity[cached]] = np.arange(len(cached))
    known = known_sids(
        generator=applied.generator,
        pieces=applied.prompted.pieces(texts),
        pairs=[
            QuerySidPairs(row_of[identity[rows["query_index"]]], sids[rows["item_index"]]),
            of_beams(query_beams),
            of_near(item_search.nearest(vectors, k=MOST_SIDS), sids),
        ],
    )
    near = near.take(cached)
    return texts, Cached(vectors, query_beams, near.items, near.queries, known)


def _voters(
    layout: Layout,
    *,
    vectors: Float[np.ndarray, "query dim"],
    identity: Int[np.ndarray, " query"],
) -> Voters:
    from dsirm_jax.data.pairs import judged_pairs
    from dsirm_jax.relevance import tables

    pairs, _ = judged_pairs(layout.judgements, splits=VOTING)
    judged = tables.read_surroundings(layout.surroundings).judged
    served = voters_of(pairs, vectors=vectors, judged=judged, identity=identity)
    if len(served.vectors) != len(judged.items):
        raise InputError(
            f"{layout.surroundings} has {len(judged.items)} queries that vote, where "
            f"{layout.queries} has {len(served.vectors)}; run `dsirm features` again"
        )
    return served


def voters_of(
    pairs: Int[np.ndarray, "pair 2"],
    *,
    vectors: Float[np.ndarray, "query dim"],
    judged: Judged,
    identity: Int[np.ndarray, " query"] | None = None,
) -> Voters:
    """Returns what votes.

    Args:
      pairs: judged (query, item) numbers of the training queries.
      vectors: of all queries.
      judged: what `neighbours.near_queries` makes of these pairs.
      identity: as there.
    """
    queries = voters(pairs[:, 0], identity=identity)
    rows = unit(vectors[queries]) if len(queries) else np.zeros((1, vectors.shape[1]), np.float32)
    return Voters(rows, judged)
