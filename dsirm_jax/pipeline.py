"""The stages in order; each reads what the ones before wrote below one `MODEL_DIR`.

Arguments of the stage functions are bound in gin, see gin/runs/. The folders and files are those
of `layout.Layout`, described in docs/contract.md.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsirm_jax.files import write_text
from dsirm_jax.layout import FULL, Layout
from dsirm_jax.training import processes

if TYPE_CHECKING:
    import pyarrow as pa

    from dsirm_jax.data.tasks import Curriculum
    from dsirm_jax.data.vectors import VectorFiles
    from dsirm_jax.encoder.model import Precomputed, Pretrained, TwoTowers
    from dsirm_jax.generator.fitted import Fitted as GeneratorFitted
    from dsirm_jax.generator.losses import Objective as GeneratorObjective
    from dsirm_jax.generator.model import T5Config
    from dsirm_jax.quantizer.codebooks import Upkeep
    from dsirm_jax.quantizer.losses import Objective
    from dsirm_jax.quantizer.model import QuantizerConfig
    from dsirm_jax.relevance.attributes import ItemTexts
    from dsirm_jax.relevance.calibration import Calibration
    from dsirm_jax.relevance.fitted import Fitted as HeadFitted
    from dsirm_jax.relevance.model import BoostedTrees, Mlp
    from dsirm_jax.relevance.schema import FeatureTable
    from dsirm_jax.sids.trie import Trie
    from dsirm_jax.training.settings import Training


SEARCHED_AT_ONCE = 256
ON_SEEN = "full_on_seen"
"""The full model's head, trained on the queries that earlier stages saw."""
JUDGED = (
    *("query_index", "item_index", "query", "item_id"),
    *("label", "gain", "relevant", "weight", "split"),
)


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
    from dsirm_jax.data import pairs, tasks, vectors, vocabulary
    from dsirm_jax.data.schema import TRAIN
    from dsirm_jax.encoder.embed import embed, embed_table
    from dsirm_jax.encoder.model import Precomputed, Pretrained
    from dsirm_jax.encoder.pretrained import encode_tables
    from dsirm_jax.encoder.train import text_tower, train

    if isinstance(encoder, Precomputed):
        for given, table, id_column, pattern in (
            (encoder.items, layout.items, "item_id", layout.item_vectors),
            (encoder.queries, layout.queries, "query", layout.query_vectors),
        ):
            copy = functools.partial(vectors.copy_vectors, given, table=table, id_column=id_column)
            processes.first(functools.partial(copy, pattern=pattern))
        return
    start = previous.stage("encode") if previous else None
    if isinstance(encoder, Pretrained):
        encode_tables(
            config=encoder,
            items=layout.items,
            queries=layout.queries,
            judgements=layout.judgements,
            item_vectors=layout.item_vectors,
            query_vectors=layout.query_vectors,
            directory=layout.stage("encode"),
            seed=seed,
            start=start,
        )
        return
    vocab_size = vocabulary.size(layout.vocabulary)
    relevant = pairs.relevant_pairs(layout.judgements, split=TRAIN)
    task = tasks.query_item(tfds_dir=layout.tfds, vocabulary=layout.vocabulary)

    def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
        return tasks.batches(
            task=task,
            lengths={"query": encoder.max_query_pieces, "item": encoder.max_item_pieces},
            batch_size=encoder.training.batch_size,
            seed=seed,
            start_step=start,
        )

    params = train(
        config=encoder,
        vocab_size=vocab_size,
        batches=batches,
        num_rows=tasks.num_rows(task),
        positives=pairs.positives_of(relevant, queries=_rows(layout.queries)),
        directory=layout.stage("encode"),
        seed=seed,
        start=start,
    )

    def embed_texts(texts: list[str], name: str, *, max_pieces: int) -> np.ndarray:
        return embed(
            tower=text_tower(encoder, vocab_size=vocab_size),
            params=params,
            pieces=vocabulary.encode(layout.vocabulary, texts),
            max_pieces=max_pieces,
            name=name,
        )

    for table, id_column, text_column, max_pieces, pattern in (
        (layout.items, "item_id", "text", encoder.max_item_pieces, layout.item_vectors),
        (layout.queries, "query", "query", encoder.max_query_pieces, layout.query_vectors),
    ):
        embed_table(
            table=table,
            id_column=id_column,
            text_column=text_column,
            embed_texts=functools.partial(embed_texts, max_pieces=max_pieces),
            pattern=pattern,
        )


def embed_queries(
    layout: Layout,
    *,
    encoder: TwoTowers | Pretrained | Precomputed,
    queries: Path,
    pattern: Path,
) -> None:
    """Writes the vectors of further queries, by a finished run's encoder as it is."""
    from dsirm_jax.data import vectors, vocabulary
    from dsirm_jax.encoder import pretrained
    from dsirm_jax.encoder.embed import embed
    from dsirm_jax.encoder.model import Precomputed, Pretrained
    from dsirm_jax.encoder.train import read_params, text_tower

    directory = layout.stage("encode")
    if isinstance(encoder, Precomputed):
        vectors.copy_vectors(encoder.queries, table=queries, id_column="query", pattern=pattern)
        return
    if isinstance(encoder, Pretrained):
        pretrained.encode_queries(
            config=encoder, directory=directory, queries=queries, pattern=pattern
        )
        return
    vocab_size = vocabulary.size(layout.vocabulary)
    texts = _columns(queries, "query")["query"]
    found = embed(
        tower=text_tower(encoder, vocab_size=vocab_size),
        params=read_params(encoder, vocab_size=vocab_size, directory=directory),
        pieces=vocabulary.encode(layout.vocabulary, texts),
        max_pieces=encoder.max_query_pieces,
        name="encode",
    )
    path = vectors.shard(pattern, number=0, of=1)
    vectors.write_vectors(path, texts, found, id_column="query")


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
    from dsirm_jax.data.vectors import shards
    from dsirm_jax.metrics import codebook
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_shards, assign_vectors, join_shards, variance
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
    items = _table(layout.items, "item_id", "category", "brand")
    before = None
    if previous:
        before = aligned_sids(previous.sids, item_ids=items["item_id"], version=start.version)
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
    found = read_sids(layout.sids)
    paths, brands = items["category"].to_pylist(), items["brand"].to_pylist()
    labels = {
        "category": np.array([path[0] if path else None for path in paths], object),
        "brand": np.array(brands, object),
    }
    _write_json(
        layout.health,
        {
            "sid_version": fitted.version,
            "sizes": fitted.sizes,
            "pinned_categories": fitted.names,
            "reconstruction_error": float(np.mean(found.errors)) / variance(catalogue.items),
            **codebook.health(found.sids, fitted.sizes, labels),
            "agreement": _agreement(
                layout,
                query_codes=assign_vectors(fitted=fitted, vectors=catalogue.queries).codes,
                item_codes=found.sids,
            ),
            **({} if before is None else {"churn": codebook.churn(before, found.sids)}),
        },
    )


def _agreement(
    layout: Layout, *, query_codes: np.ndarray, item_codes: np.ndarray
) -> dict[str, list[float | None]]:
    """Returns how often queries that training has not seen share their items' codes."""
    from dsirm_jax.data.schema import HEAD
    from dsirm_jax.metrics.codebook import prefix_agreement

    judged = _arrays(layout.judgements, "query_index", "item_index", "relevant", "split")
    rows = np.flatnonzero(judged["split"] == HEAD)
    agreement = prefix_agreement(
        query_codes[judged["query_index"][rows]],
        item_codes[judged["item_index"][rows]],
        judged["relevant"][rows],
    )
    return {
        name: [share if np.isfinite(share) else None for share in shares]
        for name, shares in agreement.items()
    }


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
    from dsirm_jax.data import tasks, vocabulary
    from dsirm_jax.generator import fitted as generators
    from dsirm_jax.generator.model import unstacked
    from dsirm_jax.generator.predict import join_shards, predict_shards
    from dsirm_jax.generator.score import score_pairs, write_pair_log_probs
    from dsirm_jax.generator.train import train
    from dsirm_jax.generator.weights import with_sid_rows
    from dsirm_jax.sids import trie
    from dsirm_jax.sids.codes import read_sids

    table = read_sids(layout.sids)
    sizes = tuple(json.loads(layout.health.read_text())["sizes"])
    config = dataclasses.replace(
        config, text_vocab_size=vocabulary.size(layout.vocabulary), sid_sizes=sizes
    )
    titles, mixed = (
        tasks.text_sid(
            tfds_dir=layout.tfds,
            vocabulary=layout.vocabulary,
            sids=table.sids,
            sizes=sizes,
            title_rate=title_rate,
        )
        for title_rate in (1, curriculum.title_rate)
    )

    def batches(start: int, *, task: Any) -> Iterator[dict[str, np.ndarray]]:
        drawn = tasks.batches(
            task=task,
            lengths={"inputs": max_pieces, "targets": len(sizes)},
            batch_size=training.batch_size,
            seed=seed,
            start_step=start,
        )
        return map(tasks.generator_features, drawn)

    num_rows = tasks.num_rows(mixed)
    params = train(
        config=config,
        objective=objective,
        training=training,
        batches=tasks.staged(
            functools.partial(batches, task=titles),
            functools.partial(batches, task=mixed),
            steps=int(curriculum.title_first * training.num_steps(num_rows)),
        ),
        num_rows=num_rows,
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
    judged = _arrays(layout.judgements, "query_index", "item_index", "relevant", "split")
    pieces = vocabulary.encode(layout.vocabulary, _columns(layout.queries, "query")["query"])
    log_probs = score_pairs(
        fitted=fitted,
        pieces=pieces,
        query_index=judged["query_index"],
        sids=table.sids[judged["item_index"]],
        batch_size=SEARCHED_AT_ONCE,
    )
    write_pair_log_probs(
        layout.pair_log_probs,
        query_index=judged["query_index"],
        item_index=judged["item_index"],
        log_probs=log_probs,
        sid_version=table.version,
    )
    _write_hits(layout, fitted=fitted, existing=existing, pieces=pieces, sids=table.sids)


def _write_hits(
    layout: Layout,
    *,
    fitted: GeneratorFitted,
    existing: Trie,
    pieces: list[list[int]],
    sids: np.ndarray,
) -> None:
    """Writes how soon the generator finds a relevant item of the queries that nothing has seen."""
    import pyarrow as pa

    from dsirm_jax.data.pairs import relevant_pairs
    from dsirm_jax.data.schema import TEST
    from dsirm_jax.generator.predict import predict
    from dsirm_jax.metrics.retrieval import HITS_AT, first_hits
    from dsirm_jax.sids.codes import list_column, write_versioned

    query, item = relevant_pairs(layout.judgements, split=TEST).T
    queries, row = np.unique(query, return_inverse=True)
    found = predict(
        fitted=fitted,
        trie=existing,
        pieces=[pieces[query] for query in queries],
        beams=max(HITS_AT),
        batch_size=SEARCHED_AT_ONCE // 8,  # many beams take much memory
    )
    ranks = first_hits(found.sids, found.valid, query_index=row, relevant_sids=sids[item])
    table = pa.table({"query_index": pa.array(queries, pa.int64()), "ranks": list_column(ranks)})
    write = functools.partial(write_versioned, layout.hits, table)
    processes.first(functools.partial(write, version=fitted.sid_version))


def predict(layout: Layout, *, table: str, beams: int) -> None:
    """a table of query texts -> their most probable SIDs, from the generator as it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data import vocabulary
    from dsirm_jax.data.readers import read_queries
    from dsirm_jax.files import replacing
    from dsirm_jax.generator.predict import join_shards, predict_shards

    fitted, existing, _ = read_generator(layout)
    queries = layout.stage("predict") / "queries.parquet"
    schema = pa.schema([("query", pa.string())])

    def read() -> None:
        with replacing(queries) as partial, pq.ParquetWriter(partial, schema) as writer:
            for texts in read_queries(table):
                writer.write_batch(pa.record_batch([pa.array(texts, pa.string())], schema=schema))

    processes.first(read)
    written = predict_shards(
        fitted=fitted,
        trie=existing,
        queries=queries,
        encode=functools.partial(vocabulary.encode, layout.vocabulary),
        pattern=layout.stage("predict") / "query_sids-*.parquet",
        beams=beams,
        batch_size=SEARCHED_AT_ONCE,
    )
    join = functools.partial(join_shards, into=layout.predicted, sid_version=fitted.sid_version)
    processes.first(functools.partial(join, written))


def predicted(layout: Layout, *, queries: Sequence[str], beams: int, titles: int = 3) -> str:
    """Returns the SIDs of queries, their probabilities and some of their items, as text."""
    from dsirm_jax.data import vocabulary
    from dsirm_jax.data.text import clean
    from dsirm_jax.generator.predict import predict as search
    from dsirm_jax.sids import trie

    fitted, existing, sids = read_generator(layout)
    texts = [clean(query) for query in queries]
    pieces = vocabulary.encode(layout.vocabulary, texts)
    found = search(
        fitted=fitted, trie=existing, pieces=pieces, beams=beams, batch_size=len(queries)
    )
    items = trie.postings(sids, sizes=existing.sizes)
    names = _table(layout.items, "title")["title"]
    lines = []
    for row, query in enumerate(texts):
        lines.append(query)
        for sid, log_prob in zip(
            found.sids[row][found.valid[row]], found.log_probs[row][found.valid[row]], strict=True
        ):
            rows = trie.items_below(existing, items, sid)
            some = " | ".join(names.take(rows[:titles]).to_pylist())
            more = f" … {len(rows):,} items" if len(rows) > titles else ""
            lines.append(f"  {'-'.join(map(str, sid)):<12} {np.exp(log_prob):6.1%}  {some}{more}")
    return "\n".join(lines)


def read_generator(layout: Layout) -> tuple[GeneratorFitted, Trie, np.ndarray]:
    """Returns a run's generator, the trie of its SIDs, and the SIDs of its items."""
    from dsirm_jax.errors import InputError
    from dsirm_jax.generator import fitted as generators
    from dsirm_jax.sids import trie
    from dsirm_jax.sids.codes import read_sids

    fitted, table = generators.load(layout.generator), read_sids(layout.sids)
    if fitted.sid_version != table.version:
        raise InputError(
            f"{layout.generator}: it writes SIDs of version {fitted.sid_version}, but those of "
            f"{layout.sids} are {table.version}; run `dsirm generate`"
        )
    return fitted, trie.build(table.sids, sizes=fitted.config.sid_sizes), table.sids


def features(layout: Layout, *, language: str | None = None) -> None:
    """texts and dense vectors -> the features of judged pairs that know nothing of SIDs."""
    from dsirm_jax.data.pairs import relevant_pairs
    from dsirm_jax.data.schema import TRAIN

    train_pairs = relevant_pairs(layout.judgements, split=TRAIN)
    write_features(layout, train_pairs=train_pairs, language=language)


def write_features(layout: Layout, *, train_pairs: np.ndarray, language: str | None) -> None:
    """Does what `features` does, with the relevant pairs that vote given."""
    from dsirm_jax.data import vocabulary
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.features import Texts, surroundings, without_sids
    from dsirm_jax.relevance.lexical import read_catalogue
    from dsirm_jax.relevance.schema import COLUMNS_WITHOUT_SIDS

    queries = _columns(layout.queries, "query")["query"]
    pairs = _arrays(layout.judgements, "query_index", "item_index")
    vectors = dense_vectors(layout, scratch=layout.stage("features"))
    near = surroundings(query_index=pairs["query_index"], **vectors, train_pairs=train_pairs)
    tables.write_surroundings(layout.surroundings, near)
    processor = vocabulary.processor(layout.vocabulary)
    catalogue, texts = read_catalogue(
        _texts(layout.items), wanted=np.unique(pairs["item_index"]), processor=processor
    )
    table = without_sids(
        **pairs,
        **vectors,
        groups=tuple(COLUMNS_WITHOUT_SIDS),
        queries=queries,
        near=near,
        texts=Texts(texts, catalogue, processor, language),
        numbers=_numbers(layout.items),
    )
    tables.write_features(layout.features, table, pairs=pairs)


def match(layout: Layout, *, beams: tuple[int | str, ...] = ()) -> None:
    """SIDs of queries and items -> how far they agree, in features of judged pairs.

    Further columns, `NAME@5` in groups `GROUP@5`, look at the first 5 beams alone, and those of
    `@own` at the query's own codes in place of the generator's.
    """
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.quantizer.assign import assign_vectors
    from dsirm_jax.relevance import tables, variants
    from dsirm_jax.relevance.features import with_sids
    from dsirm_jax.relevance.schema import join
    from dsirm_jax.sids.codes import read_version
    from dsirm_jax.sids.prefix_match import GROUPS

    pairs = _arrays(layout.judgements, "query_index", "item_index")
    near = tables.read_surroundings(layout.surroundings)
    given = tables.read_rung(
        sids=layout.sids,
        health=layout.health,
        query_sids=layout.query_sids,
        pair_log_probs=layout.pair_log_probs,
    )
    vectors = dense_vectors(layout, scratch=layout.stage("match"))
    found = [with_sids(**pairs, **vectors, **given, near=near, groups=GROUPS)]
    for tag in beams:
        if tag == variants.OWN:
            fitted = quantizers.load(layout.quantizer)
            codes = assign_vectors(fitted=fitted, vectors=vectors["query_vectors"]).codes
            other = given | {
                "beams": variants.own_beam(codes),
                "pair_log_probs": variants.own_log_probs(
                    codes[pairs["query_index"]], given["sids"][pairs["item_index"]]
                ),
            }
        else:
            other = given | {"beams": variants.first_beams(given["beams"], most=tag)}
        table = with_sids(**pairs, **vectors, **other, near=near, groups=variants.GROUPS)
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
    head: Mlp | BoostedTrees,
    training: Training,
    calibration: Calibration,
    halves: tuple[Layout, ...],
) -> None:
    """features -> calibrated probabilities of every rung, and their metrics.

    A pair's features come from a half of the cross-fit that has not seen its query: of a test query
    that is both, whose features are averaged. Without a cross-fit there is one half.
    """
    from dsirm_jax.data.schema import TEST, TRAIN
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance.evaluate import evaluate, evaluate_hits, lifts_between
    from dsirm_jax.relevance.score import score
    from dsirm_jax.relevance.tables import averaged, read_hits, read_pairs, write_predictions
    from dsirm_jax.relevance.train import train

    judged = _arrays(layout.judgements, *JUDGED)
    tested = judged["split"] == TEST
    splits = np.stack([_arrays(half.judgements, "split")["split"] for half in halves])
    seen = splits == TRAIN  # [half, pair]
    kept = ~seen.all(axis=0)

    def features_of(rung: str, where: np.ndarray) -> FeatureTable:
        # A rung without SIDs of its own takes its SID features, if any, from the full model.
        at = [half.for_rung(rung if rung in sid_rungs else FULL) for half in halves]
        sources = [(half.features, half.sid_features) for half in at]
        return averaged(sources, where=where, groups=rungs[rung], rung=rung)

    def fit(name: str, features: FeatureTable, rows: np.ndarray) -> HeadFitted:
        return train(
            name=f"relevance {name}",
            features=features.rows(rows),
            labels=judged["relevant"][rows],
            gains=judged["gain"][rows],
            weights=judged["weight"][rows],
            queries=judged["query"][rows],
            head=head,
            training=training,
            calibration=calibration,
            directory=layout.stage("relevance") / name,
            seed=seed,
        )

    scores = {}
    for rung in rungs:
        table = features_of(rung, ~seen)
        fitted = fit(rung, table, kept & ~tested)
        processes.first(functools.partial(heads.save, layout.head(rung), fitted))
        scores[rung] = score(fitted, table.rows(kept))
    write_predictions(
        layout.predictions,
        judged={name: values[kept] for name, values in judged.items()},
        scores=scores,
    )
    pairs = read_pairs(queries=layout.queries, items=layout.items, judgements=layout.judgements)
    tests = {rung: values[tested[kept]] for rung, values in scores.items()}
    lifts = lifts_between(rungs)
    metrics = evaluate(pairs=pairs.where(tested), scores=tests, lifts=lifts, seed=seed)
    metrics["hits"] = evaluate_hits(
        {rung: read_hits(layout.for_rung(rung).hits) for rung in (FULL, *sid_rungs)},
        segment=_arrays(layout.queries, "segment")["segment"],
        lifts=lifts,
        seed=seed,
    )
    if FULL in rungs:
        fitted = fit(ON_SEEN, features_of(FULL, seen), seen.any(axis=0) & ~tested)
        flattered = score(fitted, features_of(FULL, ~seen).rows(tested))
        metrics["leak"] = evaluate(
            pairs=pairs.where(tested),
            scores={FULL: tests[FULL], ON_SEEN: flattered},
            lifts=((ON_SEEN, FULL),),
            seed=seed,
        )
    _write_json(layout.metrics, metrics)


def report(layout: Layout, *, title: str) -> None:
    """everything above -> one self-contained page."""
    from dsirm_jax.report.build import build

    build(layout=layout, title=title)


def _table(path: Path, *names: str) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=list(names))


def _columns(path: Path, *names: str) -> dict[str, list]:
    table = _table(path, *names)
    return {name: table[name].to_pylist() for name in names}


def _arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    table = _table(path, *names)
    return {name: table[name].to_numpy() for name in names}


def dense_vectors(layout: Layout, *, scratch: Path) -> dict[str, np.ndarray]:
    """Returns the dense vectors of all queries and items, memory-mapped."""
    from dsirm_jax.data.vectors import read_vectors

    return {
        f"{name}_vectors": read_vectors(
            pattern, ids=_table(table, column)[column], id_column=column, scratch=scratch
        )
        for name, pattern, table, column in (
            ("query", layout.query_vectors, layout.queries, "query"),
            ("item", layout.item_vectors, layout.items, "item_id"),
        )
    }


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


def _texts(path: Path) -> Iterator[ItemTexts]:
    """Yields what features read of items, some rows at a time."""
    import pyarrow.parquet as pq

    from dsirm_jax.relevance.attributes import ItemTexts

    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=list(ItemTexts._fields)):
            yield ItemTexts(*(batch.column(name).to_pylist() for name in ItemTexts._fields))


def _numbers(path: Path) -> dict[str, np.ndarray]:
    """Returns the user's own columns of numbers about items, NaN where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.schema import number_columns

    names = number_columns(pq.read_schema(path))
    table = _table(path, *names)
    return {name: table[name].cast(pa.float64()).to_numpy() for name in names}


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
