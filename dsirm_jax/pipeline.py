"""The stages in order; each reads what the ones before wrote below one `MODEL_DIR`.

Arguments of the stage functions are bound in gin, see gin/runs/. The folders and files are those
of `layout.Layout`, described in docs/contract.md.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsirm_jax.files import write_json
from dsirm_jax.layout import FULL, Layout
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.data.tasks import Curriculum
    from dsirm_jax.data.vectors import VectorFiles
    from dsirm_jax.encoder.model import Precomputed, Pretrained, TwoTowers
    from dsirm_jax.generator.losses import Objective as GeneratorObjective
    from dsirm_jax.generator.model import T5Config
    from dsirm_jax.quantizer.codebooks import Upkeep
    from dsirm_jax.quantizer.losses import Objective
    from dsirm_jax.quantizer.model import QuantizerConfig
    from dsirm_jax.relevance.calibration import Calibration
    from dsirm_jax.relevance.fitted import Fitted as HeadFitted
    from dsirm_jax.relevance.model import Head
    from dsirm_jax.relevance.schema import FeatureTable
    from dsirm_jax.training.settings import Training

ON_SEEN = "full_on_seen"
"""The full model's head, trained on the queries that earlier stages saw."""


def prepare(
    layout: Layout,
    *,
    seed: int,
    source: Any,
    label_gains: dict[str, float],
    relevant_labels: tuple[str, ...],
    vocabulary_size: int,
    head_share: float,
    test_share: float,
    max_rejected_share: float,
    fold: tuple[int, int] | None = None,
    exchanged: bool = False,
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
    from dsirm_jax.data.prepare import prepare as prepare_tables

    if beam_runner:
        dataset.beam_pipeline_options(beam_options)  # says at once if Beam is not there
    prepare_tables(
        source=source,
        out_dir=layout.stage("prepare"),
        label_gains=label_gains,
        relevant_labels=relevant_labels,
        vocabulary_size=vocabulary_size,
        vocabulary=str(previous.vocabulary) if previous and not vocabulary else vocabulary,
        head_share=head_share,
        test_share=test_share,
        fold=fold,
        exchanged=exchanged,
        max_rejected_share=max_rejected_share,
        engine=engine,
        memory_limit=memory_limit,
        workers=workers,
        seed=seed,
    )
    dataset.build(
        prepare_dir=layout.stage("prepare"),
        data_dir=layout.tfds,
        beam_runner=beam_runner,
        beam_options=beam_options,
    )


def encode(
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


def quantize(
    layout: Layout,
    *,
    seed: int,
    config: QuantizerConfig,
    objective: Objective,
    upkeep: Upkeep,
    training: Training,
    previous: Layout | None = None,
    stay: float = 0.1,
) -> None:
    """dense vectors -> a semantic identifier for every item, codebooks and their health."""
    import pyarrow.parquet as pq

    from dsirm_jax.data.vectors import shards
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_shards, join_shards
    from dsirm_jax.quantizer.health import health
    from dsirm_jax.quantizer.model import HIERARCHICAL_KMEANS
    from dsirm_jax.quantizer.train import read_catalogue, train
    from dsirm_jax.sids.codes import aligned_sids, read_sids

    start = quantizers.load(previous.quantizer) if previous else None
    frozen = not training.epochs or config.kind == HIERARCHICAL_KMEANS
    catalogue = read_catalogue(
        items=layout.items,
        queries=layout.queries,
        judgements=layout.judgements,
        item_vectors=layout.item_vectors,
        query_vectors=layout.query_vectors,
        config=config,
        scratch=layout.stage("quantize"),
        known=start.names if start else (),
        only_known=start is not None and (frozen or not start.names),
    )
    fitted = train(
        config=config,
        objective=objective,
        upkeep=upkeep,
        training=training,
        catalogue=catalogue,
        directory=layout.stage("quantize"),
        seed=seed,
        start=start,
    )
    quantizers.save(layout.quantizer, fitted)
    before = None
    if previous:
        ids = pq.read_table(layout.items, columns=["item_id"])["item_id"]
        before = aligned_sids(previous.sids, item_ids=ids, version=start.version)
    written = assign_shards(
        fitted=fitted,
        vectors=shards(layout.item_vectors),
        pattern=layout.sid_shards,
        pinned=catalogue.pinned,
        previous=before,
        stay=stay,
    )
    join = functools.partial(join_shards, sizes=fitted.sizes, bucket_cap=config.bucket_cap)
    processes.first(functools.partial(join, written, into=layout.sids))
    found = health(
        fitted=fitted,
        catalogue=catalogue,
        table=read_sids(layout.sids),
        items=layout.items,
        judgements=layout.judgements,
        before=before,
    )
    write_json(layout.health, found)


def assign(layout: Layout, *, vectors: VectorFiles) -> None:
    """dense vectors of further items -> their SIDs, from the quantizer as it is."""
    from dsirm_jax.data.vectors import read_categories, shards
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_shards, join_shards
    from dsirm_jax.quantizer.codebooks import category_codes

    fitted = quantizers.load(layout.quantizer)
    files = shards(vectors.pattern)
    pinned = None
    if fitted.names:
        categories = read_categories(
            files,
            depth=fitted.config.pin_depth,
            title_language=fitted.config.title_language,
        )
        pinned, _ = category_codes(categories, most=len(fitted.names), known=fitted.names)
    written = assign_shards(
        fitted=fitted,
        vectors=files,
        pattern=layout.stage("assign") / "sids-*.parquet",
        pinned=pinned,
    )
    join = functools.partial(join_shards, sizes=fitted.sizes, bucket_cap=fitted.config.bucket_cap)
    processes.first(functools.partial(join, written, into=layout.assigned))


def generate(
    layout: Layout,
    *,
    seed: int,
    config: T5Config,
    objective: GeneratorObjective,
    training: Training,
    curriculum: Curriculum,
    max_pieces: int,
    beams: int,
    start: str | None = None,
    model_parallel: int = 1,
) -> None:
    """query texts -> their most probable SIDs, and exact log-probs of the judged pairs."""
    import pyarrow.parquet as pq

    from dsirm_jax.data import tasks, vocabulary
    from dsirm_jax.data.pairs import judged
    from dsirm_jax.generator import fitted as generators
    from dsirm_jax.generator.hits import write_hits
    from dsirm_jax.generator.model import unstacked
    from dsirm_jax.generator.predict import SEARCHED_AT_ONCE, join_shards, predict_shards
    from dsirm_jax.generator.score import score_pairs, write_pair_log_probs
    from dsirm_jax.generator.train import train
    from dsirm_jax.generator.weights import with_sid_rows
    from dsirm_jax.sids import trie
    from dsirm_jax.sids.codes import read_sids

    table = read_sids(layout.sids)
    sizes = tuple(json.loads(layout.health.read_text("utf-8"))["sizes"])
    config = dataclasses.replace(
        config, text_vocab_size=vocabulary.size(layout.vocabulary), sid_sizes=sizes
    )
    batches, num_rows, held_out = tasks.text_sid_batches(
        tfds_dir=layout.tfds,
        vocabulary=layout.vocabulary,
        sids=table.sids,
        sizes=sizes,
        max_pieces=max_pieces,
        curriculum=curriculum,
        training=training,
        num_queries=pq.read_metadata(layout.queries).num_rows,
        seed=seed,
    )
    params = train(
        config=config,
        objective=objective,
        training=training,
        batches=batches,
        num_rows=num_rows,
        held_out=held_out,
        directory=layout.stage("generate"),
        seed=seed,
        params=with_sid_rows(Path(start), config=config, seed=seed) if start else None,
        model_parallel=model_parallel,
    )
    params, config = unstacked(params, config=config)
    fitted = generators.Fitted(
        config=config, params=params, max_pieces=max_pieces, sid_version=table.version
    )
    processes.first(functools.partial(generators.save, layout.generator, fitted))
    existing = trie.build(table.sids, sizes=sizes)
    written = predict_shards(
        fitted=fitted,
        trie=existing,
        queries=layout.queries,
        encode=functools.partial(vocabulary.encode, layout.vocabulary),
        pattern=layout.query_sid_shards,
        beams=beams,
        batch_size=SEARCHED_AT_ONCE,
    )
    join = functools.partial(join_shards, into=layout.query_sids, sid_version=table.version)
    processes.first(functools.partial(join, written))
    texts = pq.read_table(layout.queries, columns=["query"])["query"].to_pylist()
    pieces = vocabulary.encode(layout.vocabulary, texts)
    pairs = judged(layout.judgements, "query_index", "item_index")
    log_probs = score_pairs(
        fitted=fitted,
        pieces=pieces,
        query_index=pairs["query_index"],
        sids=table.sids[pairs["item_index"]],
        batch_size=SEARCHED_AT_ONCE,
    )
    write_pair_log_probs(
        layout.pair_log_probs, **pairs, log_probs=log_probs, sid_version=table.version
    )
    write_hits(
        layout.hits,
        fitted=fitted,
        trie=existing,
        pieces=pieces,
        sids=table.sids,
        judgements=layout.judgements,
    )


def features(layout: Layout, *, language: str | None = None) -> None:
    """texts and dense vectors -> the features of judged pairs that know nothing of SIDs."""
    write_features(layout, voting=layout.judgements, language=language)


def write_features(layout: Layout, *, voting: Path, language: str | None) -> None:
    """Does what `features` does, where the judgements given vote, but those of test queries."""
    import pyarrow.parquet as pq

    from dsirm_jax.data import vocabulary
    from dsirm_jax.data.pairs import judged, judged_pairs
    from dsirm_jax.data.schema import VOTING
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.digests import Reading, read_catalogue, read_items, read_queries
    from dsirm_jax.relevance.features import Texts, filled, surroundings, without_sids
    from dsirm_jax.relevance.schema import COLUMNS_WITHOUT_SIDS

    queries = pq.read_table(layout.queries, columns=["query"])["query"].to_pylist()
    pairs = judged(layout.judgements, "query_index", "item_index")
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


def match(layout: Layout, *, beams: tuple[int | str, ...] = ()) -> None:
    """SIDs of queries and items -> how far they agree, in features of judged pairs.

    Further columns, `NAME@5` in groups `GROUP@5`, look at the first 5 beams alone, and those of
    `@own` at the query's own codes in place of the generator's.
    """
    from dsirm_jax.data.pairs import judged
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_vectors
    from dsirm_jax.relevance import tables, variants
    from dsirm_jax.relevance.features import with_sids
    from dsirm_jax.relevance.schema import join
    from dsirm_jax.sids.codes import read_version
    from dsirm_jax.sids.prefix_match import GROUPS

    pairs = judged(layout.judgements, "query_index", "item_index")
    near = tables.read_surroundings(layout.surroundings)
    given = tables.read_rung(
        sids=layout.sids,
        health=layout.health,
        query_sids=layout.query_sids,
        pair_log_probs=layout.pair_log_probs,
    )
    found = [with_sids(**pairs, **given, near=near, groups=GROUPS)]
    for tag in beams:
        if tag == variants.OWN:
            fitted = quantizers.load(layout.quantizer)
            vectors = tables.read_dense_vectors(layout, scratch=layout.stage("match"))
            codes = assign_vectors(fitted=fitted, vectors=vectors["query_vectors"]).codes
            other = given | {
                "beams": variants.own_beam(codes),
                "pair_log_probs": variants.own_log_probs(
                    codes[pairs["query_index"]], given["sids"][pairs["item_index"]]
                ),
            }
        else:
            other = given | {"beams": variants.first_beams(given["beams"], most=tag)}
        table = with_sids(**pairs, **other, near=near, groups=variants.GROUPS)
        found.append(variants.tagged(table, tag))
    tables.write_features(
        layout.sid_features, join(found), pairs=pairs, sid_version=read_version(layout.sids)
    )


def relevance(
    layout: Layout,
    *,
    seed: int,
    rungs: dict[str, tuple[str, ...]],
    sid_rungs: tuple[str, ...],
    head: Head,
    training: Training,
    calibration: Calibration,
    halves: tuple[Layout, ...],
) -> None:
    """features -> calibrated probabilities of every rung, and their metrics.

    A pair's features come from a half of the cross-fit that has not seen its query: of a test query
    that is both, whose probabilities are averaged. Without a cross-fit there is one half.
    """
    import pyarrow.parquet as pq

    from dsirm_jax.data.pairs import judged
    from dsirm_jax.data.schema import TEST, TRAIN
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.evaluate import evaluate, evaluate_hits, lifts_between
    from dsirm_jax.relevance.score import esci_probabilities, mean_of_halves, score
    from dsirm_jax.relevance.train import train

    pairs = judged(layout.judgements, *tables.ABOUT_THE_PAIR, "weight")
    tested = pairs["split"] == TEST
    splits = np.stack([judged(half.judgements, "split")["split"] for half in halves])
    seen = splits == TRAIN  # [half, pair]
    kept = ~seen.all(axis=0)

    def fit(
        name: str, of_halves: list[FeatureTable], *, where: np.ndarray, rows: np.ndarray
    ) -> HeadFitted:
        some = [half.rows(rows) for half in of_halves]
        return train(
            name=f"relevance {name}",
            features=tables.first_of(some, where=where[:, rows]),
            labels=pairs["relevant"][rows],
            gains=pairs["gain"][rows],
            weights=pairs["weight"][rows],
            queries=pairs["query"][rows],
            head=head,
            training=training,
            calibration=calibration,
            directory=layout.stage("relevance") / name,
            seed=seed,
        )

    grade_of = dict(zip(pairs["label"], zip(pairs["gain"].tolist(), pairs["relevant"].tolist())))
    scores, grades, on_seen = {}, {}, None
    for rung in rungs:
        # A rung without SIDs of its own takes its SID features, if any, from the full model.
        at = [half.for_rung(rung if rung in sid_rungs else FULL) for half in halves]
        sources = [(half.features, half.sid_features) for half in at]
        of_halves = tables.read_halves(sources, groups=rungs[rung], rung=rung)
        fitted = fit(rung, of_halves, where=~seen, rows=kept & ~tested)
        processes.first(functools.partial(heads.save, layout.head(rung), fitted))
        scores[rung] = mean_of_halves(
            [score(fitted, half.rows(kept)) for half in of_halves], where=~seen[:, kept]
        )
        tests = [half.rows(tested) for half in of_halves]
        of_grades = [esci_probabilities(fitted, half, grade_of=grade_of) for half in tests]
        grades[rung] = None if of_grades[0] is None else np.mean(of_grades, axis=0)
        if rung == FULL:
            rows = seen.any(axis=0) & ~tested
            flattered = fit(ON_SEEN, of_halves, where=seen, rows=rows)
            on_seen = np.mean([score(flattered, half) for half in tests], axis=0)
    tables.write_predictions(
        layout.predictions,
        judged={name: values[kept] for name, values in pairs.items()},
        scores=scores,
    )
    asked = tables.read_pairs(
        queries=layout.queries, items=layout.items, judgements=layout.judgements
    ).where(tested)
    of_tests = {rung: values[tested[kept]] for rung, values in scores.items()}
    lifts = lifts_between(rungs)
    metrics = evaluate(pairs=asked, scores=of_tests, grades=grades, lifts=lifts, seed=seed)
    metrics["hits"] = evaluate_hits(
        {rung: tables.read_hits(layout.for_rung(rung).hits) for rung in (FULL, *sid_rungs)},
        segment=pq.read_table(layout.queries, columns=["segment"])["segment"].to_numpy(),
        lifts=lifts,
        seed=seed,
    )
    if FULL in rungs:
        both = {FULL: of_tests[FULL], ON_SEEN: on_seen}
        metrics["leak"] = evaluate(pairs=asked, scores=both, lifts=((ON_SEEN, FULL),), seed=seed)
    write_json(layout.metrics, metrics)


def report(layout: Layout, *, title: str) -> None:
    """everything above -> one self-contained page."""
    from dsirm_jax.report.build import build

    build(layout=layout, title=title)
