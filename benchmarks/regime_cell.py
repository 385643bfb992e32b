"""One case of `regime.py`: a shop, vectors, training queries and, on these, a quantizer for each γ.

No generator: a query's SIDs are its own codes, and those of items and judgements near to it.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsirm_jax.data import vocabulary
from dsirm_jax.data.identity import identities_in
from dsirm_jax.data.pairs import judged_pairs, relevant_pairs
from dsirm_jax.data.schema import HEAD, TEST, TRAIN, VOTING
from dsirm_jax.data.vectors import read_categories
from dsirm_jax.encoder.embed import embed, embedding
from dsirm_jax.encoder.kinds.towers import TwoTowers, first_params, text_tower
from dsirm_jax.encoder.train import pair_batches
from dsirm_jax.encoder.train import train as train_encoder
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop
from dsirm_jax.metrics.bootstrap import (
    Statistic,
    bootstrap,
    interval,
    mean_over_queries,
    roc_auc_statistic,
)
from dsirm_jax.metrics.ranking import auc_per_query
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.codebooks import category_codes
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitting import train as train_quantizer
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.relevance import groups, tables, variants
from dsirm_jax.relevance.compute import pair_context, pair_features, rung_features
from dsirm_jax.relevance.features.group import BEAMS, NEIGHBOUR_SIDS, PAIRS
from dsirm_jax.relevance.heads.blend import Blend
from dsirm_jax.relevance.heads.head import Fitting, relevance_logits
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.neighbours import find_surroundings
from dsirm_jax.relevance.train import labelled_pairs
from dsirm_jax.sids.prefix_match import log_prefix_shares
from dsirm_jax.training.settings import Training

VECTORS = {"untrained": 0.0, "brief": 1.0, "towers": 12.0}
"""Epochs that towers are trained for, by how much vectors know of queries."""
UNSUPERVISED = 0.0
UNUSED = "unused"
"""Split of the training queries that a case has none of."""
RESAMPLES = 500
LEVELS = (1, 2, 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shop:
    """How large a shop is, and what is fitted to it.

    Attributes:
      items: of the catalogue.
      train: queries that towers and quantizers may learn from, at most.
      head: queries that the relevance head learns from.
      test: queries that are judged on.
      steps: of the quantizer, of 512 rows each.
      sizes: codes a level.
      pin_depth: levels of the category path that name the first code; 0: none does.
      hidden: width of the hidden layer of the quantizer's encoder.
    """

    items: int = 10_000
    train: int = 10_000
    head: int = 3_000
    test: int = 3_000
    steps: int = 1_500
    sizes: tuple[int, ...] = (128, 128, 128)
    pin_depth: int = 0
    hidden: int = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """Judged pairs, `[pair]` each: those of the head, or of the test."""

    query_index: np.ndarray
    item_index: np.ndarray
    relevant: np.ndarray
    label: np.ndarray
    gain: np.ndarray
    weight: np.ndarray
    in_test: np.ndarray

    def rows(self, kept: np.ndarray) -> Pairs:
        return Pairs(**{name: values[kept] for name, values in vars(self).items()})


def prepared(shop: Shop, *, seed: int, folder: Path) -> Path:
    """Returns the folder of a shop's tables, made where they are missing."""
    done = folder / "summary.json"
    if not done.exists():
        queries = shop.train + shop.head + shop.test
        prepare(
            source=SimulatedShop(items=shop.items, queries=queries, seed=seed),
            out_dir=folder,
            label_gains={"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0},
            relevant_labels=("E",),
            seed=seed,
            vocabulary_size=8_000,
            test_share=shop.test / queries,
            head_share=shop.head / (queries - shop.test),
            workers=2,
        )
    return folder


def with_training_queries(folder: Path, *, most: int, seed: int) -> Path:
    """Returns judgements in which so many training queries are left: fewer are some of more."""
    path = folder / f"judgements-{most}.parquet"
    table = pq.read_table(folder / "judgements.parquet")
    query, split = table["query_index"].to_numpy(), table["split"].to_numpy(zero_copy_only=False)
    learnt = np.unique(query[split == TRAIN])
    dropped = np.random.default_rng(seed).permutation(learnt)[most:]
    split = np.where(np.isin(query, dropped), UNUSED, split)
    place = table.schema.get_field_index("split")
    pq.write_table(table.set_column(place, "split", pa.array(split.tolist(), pa.string())), path)
    return path


def encoded(folder: Path, judgements: Path, *, epochs: float, seed: int) -> dict[str, np.ndarray]:
    """Returns unit vectors of all queries and items, of towers trained for so long."""
    processor = vocabulary.processor(folder / "vocabulary.model")
    config = TwoTowers(
        dim=128,
        hidden_dim=256,
        max_query_pieces=16,
        max_item_pieces=48,
        temperature=0.07,
        training=Training(epochs=epochs, batch_size=256, learning_rate=2e-3),
    )
    tower = text_tower(config, vocab_size=processor.vocab_size())
    texts = {
        "query": pq.read_table(folder / "queries.parquet")["query"].to_pylist(),
        "item": pq.read_table(folder / "items.parquet")["text"].to_pylist(),
    }
    lengths = {"query": config.max_query_pieces, "item": config.max_item_pieces}
    pieces = {
        side: [row[: lengths[side]] for row in processor.encode(rows, out_type=int)]
        for side, rows in texts.items()
    }
    params = first_params(tower, seed=seed)
    if epochs:
        made = pair_batches(
            {
                side: vocabulary.rectangle(rows, shape=(len(rows), lengths[side]))
                for side, rows in pieces.items()
            },
            judgements=judgements,
            queries=folder / "queries.parquet",
            training=config.training,
            spec=config.batch_spec(),
            seed=seed,
        )
        with tempfile.TemporaryDirectory() as scratch:
            params = train_encoder(
                embed=embedding(tower),
                params=params,
                temperature=config.temperature,
                training=config.training,
                batches=made.batches,
                num_rows=made.num_rows,
                directory=Path(scratch),
            )
    return {
        f"{side}_vectors": unit(
            embed(
                tower=tower, params=params, pieces=rows, max_pieces=lengths[side], name=f"{side}s"
            )
        )
        for side, rows in pieces.items()
    }


def read_pairs(judgements: Path) -> Pairs:
    """Reads the pairs of the splits `head` and `test`."""
    table = pq.read_table(judgements)
    table = table.filter(pc.is_in(table["split"], pa.array((HEAD, TEST))))
    names = ("query_index", "item_index", "relevant", "label", "gain", "weight")
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in names}
    return Pairs(**columns, in_test=np.asarray(pc.equal(table["split"], TEST)))


def case(
    shop: Shop, *, vectors: str, queries: int, gammas: Sequence[float], seed: int, scratch: Path
) -> dict[str, Any]:
    """Returns the figures of one seed, vectors and number of training queries, for every γ.

    Args:
      shop: what is made.
      vectors: one of `VECTORS`.
      queries: training queries.
      gammas: weights of the contrastive term; `UNSUPERVISED` is always there too.
      seed: of the shop and of all that is fitted.
      scratch: folder of the shop's tables, which cases share.
    """
    started = time.monotonic()
    folder = prepared(shop, seed=seed, folder=scratch / f"{shop.items}-{shop.train}-{seed}")
    judgements = with_training_queries(folder, most=queries, seed=seed)
    dense = encoded(folder, judgements, epochs=VECTORS[vectors], seed=seed)
    pairs = read_pairs(judgements)
    context = _context(folder, judgements, pairs, dense)
    control = pair_features(context, groups=groups.reading(PAIRS)).values
    pinned, names = _pinned(shop, folder / "items.parquet")
    training = TrainingItems(
        items=dense["item_vectors"],
        queries=dense["query_vectors"],
        pairs=relevant_pairs(judgements, split=TRAIN),
        pinned=pinned,
        names=names,
    )
    test = pairs.rows(pairs.in_test)
    statistics = _statistics(test, folder)
    scored = {"control": _scores(control, pairs, seed=seed)}
    found: dict[str, dict[str, Statistic]] = {
        name: {metric: of(scores) for metric, of in statistics.items()}
        for name, scores in scored.items()
    }
    for gamma in sorted({UNSUPERVISED, *gammas}):
        codes = _codes(shop, training, gamma=gamma, seed=seed)
        features = rung_features(
            groups=groups.reading(BEAMS, NEIGHBOUR_SIDS),
            query_index=pairs.query_index,
            item_index=pairs.item_index,
            sids=codes["item"],
            log_shares=log_prefix_shares(codes["item"], sizes=training.sizes(shop.sizes)),
            beams=variants.own_beam(codes["query"]),
            pair_log_probs=variants.own_log_probs(
                codes["query"][pairs.query_index], codes["item"][pairs.item_index]
            ),
            surroundings=context.surroundings,
        ).values
        scores = _scores(np.concatenate([control, features], axis=1), pairs, seed=seed)
        of_codes = _agreement(
            codes["query"][test.query_index], codes["item"][test.item_index], test
        )
        found[f"{gamma:g}"] = {name: of(scores) for name, of in statistics.items()} | of_codes
        print(f"{vectors}, {queries} queries, seed {seed}, γ = {gamma:g} is done", flush=True)
    identity = identities_in(folder / "queries.parquet")[np.unique(test.query_index)]
    return {
        "shop": dataclasses.asdict(shop),
        "seed": seed,
        "vectors": vectors,
        "queries": queries,
        "gammas": sorted(gammas),
        "test_pairs": len(test.relevant),
        "seconds": round(time.monotonic() - started, 1),
        "over_unsupervised": _compared(found, test, groups=identity, base=f"{UNSUPERVISED:g}"),
    }


def _context(folder: Path, judgements: Path, pairs: Pairs, dense: Mapping[str, np.ndarray]) -> Any:
    texts = pq.read_table(folder / "queries.parquet")["query"].to_pylist()
    voting, relevant = judged_pairs(judgements, splits=VOTING)
    surroundings = find_surroundings(
        query_index=pairs.query_index,
        **dense,
        train_pairs=voting,
        relevant=relevant,
        identity=identities_in(folder / "queries.parquet"),
    )
    return pair_context(
        query_index=pairs.query_index,
        item_index=pairs.item_index,
        **dense,
        surroundings=surroundings,
        queries=texts,
        items=tables.read_item_texts(folder / "items.parquet"),
        numbers={},
        processor=vocabulary.processor(folder / "vocabulary.model"),
        language="en",
    )


def _pinned(shop: Shop, items: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Returns the first code of every item that its category names, and the categories."""
    if not shop.pin_depth:
        return None, ()
    categories = read_categories([str(items)], depth=shop.pin_depth)
    return category_codes(categories, most=shop.sizes[0])


def _codes(shop: Shop, items: TrainingItems, *, gamma: float, seed: int) -> dict[str, np.ndarray]:
    """Returns the SIDs of items, and of queries as if they were items, int32 `[row, level]`."""
    batch = 512
    fitted = train_quantizer(
        config=QuantizerConfig(
            codebook_sizes=shop.sizes,
            kind=RqVae(latent_dim=64, hidden_dim=shop.hidden),
            pin_depth=shop.pin_depth,
        ),
        items=items,
        objective=QuantizerObjective(contrastive=gamma),
        training=Training(
            epochs=shop.steps * batch / len(items.rows()), batch_size=batch, learning_rate=1e-3
        ),
        seed=seed,
    )
    sides = {"item": items.items, "query": items.queries}
    pinned = {"item": items.pinned, "query": None}
    return {
        side: assign_vectors(fitted=fitted, vectors=of, pinned=pinned[side]).codes
        for side, of in sides.items()
    }


def _scores(features: np.ndarray, pairs: Pairs, *, seed: int) -> np.ndarray:
    """Returns the log-odds of the test pairs, of a head fitted to the others."""
    taught, asked = pairs.rows(~pairs.in_test), features[pairs.in_test]
    labelled, gains, _ = labelled_pairs(
        features=features[~pairs.in_test],
        labels=taught.relevant,
        gains=taught.gain,
        weights=taught.weight,
        queries=taught.query_index,
    )
    trees = BoostedTrees(trees=150, learning_rate=0.04, leaves=6, min_leaf=80, l2=10.0, columns=0.3)
    head = Blend(heads=(Linear(), trees))
    with tempfile.TemporaryDirectory() as scratch:
        none = Training(epochs=0, batch_size=1, learning_rate=1.0)
        params = head.fit(labelled, Fitting("relevance", none, Path(scratch), seed))
    outputs = head.outputs(params, asked, grades=len(gains))
    return np.asarray(relevance_logits(jax.numpy.asarray(outputs), labelled.relevant))


def _statistics(test: Pairs, folder: Path) -> dict[str, Callable[[np.ndarray], Statistic]]:
    """Returns what makes a statistic of the test pairs' scores, by metric."""
    types = pq.read_table(folder / "items.parquet")["truth_type"].to_numpy(zero_copy_only=False)
    fine = _one_attribute_off(test, types)

    def within(scores: np.ndarray) -> Statistic:
        return mean_over_queries(auc_per_query(test.query_index, test.relevant, scores))

    def fine_grained(scores: np.ndarray) -> Statistic:
        kept = auc_per_query(test.query_index[fine], test.relevant[fine], scores[fine])
        per_query = np.full(len(np.unique(test.query_index)), np.nan)
        per_query[np.isin(np.unique(test.query_index), test.query_index[fine])] = kept
        return mean_over_queries(per_query)

    return {
        "auc": lambda scores: roc_auc_statistic(test.query_index, test.relevant, scores),
        "within": within,
        "fine": fine_grained,
    }


def _one_attribute_off(test: Pairs, types: np.ndarray) -> np.ndarray:
    """Returns which pairs are relevant, or an S of a type that a relevant item of the query has."""
    kind = np.unique(types, return_inverse=True)[1][test.item_index]
    key = test.query_index * (kind.max() + 1) + kind
    same = np.isin(key, key[test.relevant])
    return test.relevant | ((test.label == "S") & same)


def _agreement(query: np.ndarray, item: np.ndarray, test: Pairs) -> dict[str, Statistic]:
    """Returns the shares of relevant, and of other, pairs whose first l codes are the same."""
    index = np.unique(test.query_index, return_inverse=True)[1]
    found = {}
    for level in LEVELS:
        agrees = np.all(query[:, :level] == item[:, :level], axis=1)
        for name, kept in (("relevant", test.relevant), ("other", ~test.relevant)):
            sums = np.stack([np.bincount(index, weights=of) for of in (kept & agrees, kept)])
            found[f"agreement_{name}_{level}"] = _share(sums)
    return found


def _share(sums: np.ndarray) -> Statistic:
    return lambda counts: (sums[0] @ counts) / np.maximum(sums[1] @ counts, 1)


def _compared(
    found: Mapping[str, Mapping[str, Statistic]], test: Pairs, *, groups: np.ndarray, base: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns each metric's value and difference from `base`, by γ; its error is over queries."""
    named = {(name, metric): of for name, some in found.items() for metric, of in some.items()}
    values, samples = bootstrap(
        named,
        num_queries=len(np.unique(test.query_index)),
        num_pairs=len(test.query_index),
        resamples=RESAMPLES,
        seed=0,
        groups=groups,
    )
    compared: dict[str, dict[str, dict[str, float]]] = {}
    for name, metric in named:
        apart = samples[name, metric] - samples[base, metric]
        gain = interval(values[name, metric] - values[base, metric], apart)
        compared.setdefault(name, {})[metric] = {
            "value": round(values[name, metric], 6),
            "gain": round(gain.value, 6),
            "low": round(gain.low, 6),
            "high": round(gain.high, 6),
            "error": round(float(np.nanstd(apart)), 6),
        }
    return compared
