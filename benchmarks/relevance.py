"""Features and heads of relevance, pairs a second, against the same in plain NumPy and pandas.

    python benchmarks/relevance.py [--quick] [--json FILE]

Data: random vectors of 128 numbers, SIDs of three levels, ten beams a query, texts of random words.
The other side is what one writes without this package: joins and group-bys in pandas, a loop over
pairs with NumPy inside, BM25 with counters, heads by scikit-learn and NumPy. Both sides are held to
the same numbers first. Both have read the texts, counted the items of every prefix and shortened
the vectors before. Judged pairs are 20 items a query; `request` is one query with 100 items, as
a search page asks. `all features` are those that have another side.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import sentencepiece
from lines import print_heading, print_row, write
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits
from timing import compare

from dsirm_jax.relevance import groups as registry
from dsirm_jax.relevance import score, train
from dsirm_jax.relevance.calibration import Calibration
from dsirm_jax.relevance.compute import pair_features, rung_features
from dsirm_jax.relevance.digests import Reading, catalogue_statistics, digest_items, digest_queries
from dsirm_jax.relevance.features.group import PairContext, PairTexts
from dsirm_jax.relevance.features.lexical import BM25_B, BM25_K1
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.head import Head
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.heads.trees import BoostedTrees, classifier
from dsirm_jax.relevance.neighbours import find_surroundings, normalise
from dsirm_jax.relevance.schema import FeatureTable, join
from dsirm_jax.relevance.terms import ItemTexts
from dsirm_jax.sids.prefix_match import (
    KERNEL_WIDTH,
    MIN_LOG_PROB,
    SHRINKAGE,
    Beams,
    log_prefix_shares,
)
from dsirm_jax.training.settings import Training

SIZES = (32, 64, 64)
BEAMS, DIM, ITEMS_OF_QUERY = 10, 128, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """What the other side knows of texts: those of the pairs' queries and items, and pieces."""

    asks: list[str]
    asked: list[set[int]]
    texts: list[str]
    counts: list[Counter]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shop:
    """Arguments of the two functions of features, for pairs of the first `queries` queries."""

    shared: dict
    dense: dict
    of_sids: dict
    words: Words


def main() -> None:
    """Prints a table and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer pairs and rounds")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    queries, items, rounds = (100, 2_000, 3) if given.quick else (1_000, 50_000, 7)
    cases = []
    print_heading("case", "ours, pairs/s", "other, pairs/s", "ratio (95 %)")
    for name, shop in {
        "pairs": make(queries=queries, items=items, asked=queries, each=ITEMS_OF_QUERY),
        "request": make(queries=queries, items=items, asked=1, each=100),
    }.items():
        for group, (ours, other) in sides(shop).items():
            check(group, ours(), other())
            cases.append(timed(f"{name}/{group}", shop, ours, other, rounds=rounds))
        for case, (ours, other) in heads(shop).items():
            np.testing.assert_allclose(ours(), other(), atol=1e-5)
            cases.append(timed(f"{name}/{case}", shop, ours, other, rounds=rounds))
    write(given.json, cases)


def timed(
    name: str, shop: Shop, ours: Callable[[], object], other: Callable[[], object], *, rounds: int
) -> dict:
    """Times one case and prints it."""
    case = compare(name, ours, other, rounds=rounds)
    pairs = 1e3 * len(shop.shared["query_index"])
    case |= {"ours": pairs / case["ours"], "other": pairs / case["other"], "unit": "pairs/s"}
    interval = f"{case['ratio']:.1f} ({case['low']:.1f} to {case['high']:.1f})"
    print_row(name, f"{case['ours']:,.0f}", f"{case['other']:,.0f}", interval)
    return case


def make(*, queries: int, items: int, asked: int, each: int) -> Shop:
    """Returns a shop with `each` pairs of the first `asked` queries."""
    generator = np.random.default_rng(0)
    words = np.array(["".join(generator.choice(list("aeioklmnrst"), 5)) for _ in range(2_000)])
    odds = 1 / np.arange(1, 2_001)

    def texts(count: int, length: int) -> list[str]:
        drawn = generator.choice(2_000, (count, length), p=odds / odds.sum())
        return [" ".join(row) for row in words[drawn]]

    titles, asks = texts(items, 12), texts(queries, 3)
    query_index = np.repeat(np.arange(asked), each)
    item_index = generator.integers(items, size=len(query_index))
    query_vectors, item_vectors = (
        generator.normal(size=(count, DIM)).astype(np.float32) for count in (queries, items)
    )
    log_probs = np.log(-np.sort(-generator.dirichlet(np.ones(BEAMS), queries), axis=1))
    train_pairs = np.stack([generator.integers(of, size=5 * queries) for of in (queries, items)], 1)
    nothing = [None] * items
    processor = vocabulary(titles[:2_000])
    wanted, item_row = np.unique(item_index, return_inverse=True)
    catalogue, kept = catalogue_statistics(
        [ItemTexts(titles, titles, nothing, nothing)], wanted=wanted, processor=processor
    )
    reading = Reading(processor, catalogue.names, None)
    asked = [asks[query] for query in np.unique(query_index)]
    words = Words(
        asks=asked,
        asked=[set(pieces) for pieces in processor.encode(asked)],
        texts=list(kept.text),
        counts=[Counter(pieces) for pieces in processor.encode(list(kept.text))],
    )
    normalise(item_vectors)
    sids = generator.integers(0, SIZES, size=(items, len(SIZES))).astype(np.int32)
    shared = {
        "query_index": query_index,
        "item_index": item_index,
        "query_vectors": query_vectors,
        "item_vectors": item_vectors,
    }
    shared["surroundings"] = find_surroundings(
        **{name: shared[name] for name in ("query_index", "query_vectors", "item_vectors")},
        train_pairs=train_pairs,
        relevant=generator.random(len(train_pairs)) < 0.6,
    )
    return Shop(
        shared=shared,
        dense={
            "item_row": item_row,
            "texts": PairTexts(
                digest_queries(asked, reading), digest_items(kept, reading), catalogue.pieces
            ),
            "numbers": {},
        },
        of_sids={
            "sids": sids,
            "log_shares": log_prefix_shares(sids, sizes=SIZES),
            "beams": Beams(
                sids=generator.integers(0, SIZES, (queries, BEAMS, len(SIZES))).astype(np.int32),
                log_probs=log_probs.astype(np.float32),
                valid=np.ones((queries, BEAMS), bool),
            ),
            "pair_log_probs": -30 * generator.random((len(query_index), 3)).astype(np.float32),
        },
        words=words,
    )


def vocabulary(texts: list[str]) -> sentencepiece.SentencePieceProcessor:
    """Trains a small SentencePiece model."""
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=f"{folder}/pieces",
            vocab_size=1_000,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        return sentencepiece.SentencePieceProcessor(model_file=f"{folder}/pieces.model")


def check(group: str, ours: np.ndarray, other: np.ndarray) -> None:
    """Raises unless both sides have the same numbers."""
    np.testing.assert_allclose(ours, other, rtol=1e-3, atol=1e-4, err_msg=group)


def sides(shop: Shop) -> dict[str, tuple[Callable, Callable]]:
    """Returns each group of features as computed by us and by the other side."""
    others = {
        "dense": plain_cosine,
        "lexical": plain_lexical,
        "prf": plain_prf,
        "votes": plain_votes,
        "paper_match": plain_match,
        "prefix": plain_prefix,
        "neighbours": plain_neighbours,
    }

    def ours(*names: str) -> np.ndarray:
        tables = []
        of_pairs, of_sids = (
            [group for group in registry.reading(*reads) if group.name in names]
            for reads in (("pairs",), ("beams", "neighbour_sids"))
        )
        if of_pairs:
            tables.append(pair_features(PairContext(**shop.shared, **shop.dense), groups=of_pairs))
        if of_sids:
            about = ("query_index", "item_index", "surroundings")
            shared = {name: shop.shared[name] for name in about}
            tables.append(rung_features(**shared, **shop.of_sids, groups=of_sids))
        return join(tables).values

    def other(*groups: str) -> np.ndarray:
        return np.concatenate([others[group](shop) for group in groups], axis=1)

    cases = {group: (group,) for group in others} | {"all features": tuple(others)}
    return {
        name: (lambda g=groups: ours(*g), lambda g=groups: other(*g))
        for name, groups in cases.items()
    }


def heads(shop: Shop) -> dict[str, tuple[Callable, Callable]]:
    """Returns each head as applied by us and by the other side, on features that are there."""
    generator = np.random.default_rng(1)
    values = generator.normal(size=(4_000, 40)).astype(np.float32)
    labels = generator.random(4_000) < expit(values[:, 0] * values[:, 1])
    names = tuple(f"feature_{number}" for number in range(40))
    table = FeatureTable(names=names, groups=("dense",) * 40, values=values)
    wide = table.rows(np.arange(len(shop.shared["query_index"])) % 4_000)

    def fitted(head: Head) -> FittedHead:
        with tempfile.TemporaryDirectory() as folder:
            return train.train(
                name="head",
                features=table,
                labels=labels,
                gains=labels * 1.0,
                weights=np.ones(4_000),
                queries=[""] * 4_000,
                head=head,
                training=Training(epochs=1, batch_size=256, learning_rate=1e-3),
                calibration=Calibration(share=0.0),
                directory=Path(folder),
                seed=0,
            )

    trees, mlp = BoostedTrees(), Mlp()
    with threadpool_limits(1, user_api="openmp"):
        reference = classifier(trees, seed=0).fit(values, labels)
    of_trees, of_mlp = fitted(trees), fitted(mlp)
    return {
        "trees": (
            lambda: score.score(of_trees, wide),
            lambda: plain_trees(reference, wide.values),
        ),
        "mlp": (lambda: score.score(of_mlp, wide), lambda: plain_mlp(of_mlp, wide.values)),
    }


def plain_trees(reference: HistGradientBoostingClassifier, values: np.ndarray) -> np.ndarray:
    """scikit-learn's own predictions, by one thread: several can wait for each other for long."""
    with threadpool_limits(1, user_api="openmp"):
        return reference.predict_proba(values)[:, 1]


def plain_mlp(fitted: FittedHead, values: np.ndarray) -> np.ndarray:
    """A network in NumPy."""
    params = fitted.params
    x = np.clip((values - params.mean) / params.scale, -5, 5)
    layers = [params.network[f"Dense_{number}"] for number in range(len(params.network))]
    for number, layer in enumerate(layers):
        x = x @ layer["kernel"] + layer["bias"]
        if number + 1 < len(layers):
            x = x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return expit(x[:, 0])


def normal(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def pairs_of(shop: Shop) -> zip:
    """The query, its row among those asked, and the item of each pair."""
    query, item = shop.shared["query_index"], shop.shared["item_index"]
    return zip(query, np.unique(query, return_inverse=True)[1], item, strict=True)


def plain_cosine(shop: Shop) -> np.ndarray:
    """The group `dense`."""
    given = shop.shared
    query, item = (
        normal(given[f"{side}_vectors"][given[f"{side}_index"]]) for side in ("query", "item")
    )
    return np.sum(query * item, axis=1, keepdims=True)


def plain_lexical(shop: Shop) -> np.ndarray:
    """The group `lexical`, with a counter of pieces a text."""
    words = shop.words
    documents, having, mean_length = shop.dense["texts"].statistics
    idf = np.log1p((documents - having + 0.5) / (having + 0.5))
    item_row = np.unique(shop.shared["item_index"], return_inverse=True)[1]
    rows = []
    for (_, query, _), item in zip(pairs_of(shop), item_row, strict=True):
        pieces, has = words.asked[query], words.counts[item]
        norm = BM25_K1 * (1 - BM25_B + BM25_B * has.total() / mean_length)
        shared = [piece for piece in pieces if piece in has]
        bm25 = sum(
            idf[piece] * has[piece] * (BM25_K1 + 1) / (has[piece] + norm) for piece in shared
        )
        rows.append(
            (
                bm25,
                bm25 / max(sum(idf[piece] for piece in pieces), 1e-9),
                len(shared) / max(len(pieces), 1),
                len(shared) / max(len(has), 1),
                float(words.asks[query] in words.texts[item]),
                math.log1p(len(pieces)),
            )
        )
    return np.array(rows)


def plain_prf(shop: Shop) -> np.ndarray:
    """The group `prf`, pair by pair."""
    items = shop.shared["surroundings"].items
    vectors, weights = shop.shared["item_vectors"], items.weights()
    rows = []
    for _, query, item in pairs_of(shop):
        near, others = items.index[query], items.index[query] != item
        cosines = vectors[near[others]] @ vectors[item]
        rows.append((np.average(cosines, weights=weights[query][others]), cosines.max()))
    return np.array(rows)


def plain_votes(shop: Shop) -> np.ndarray:
    """The group `votes`, pair by pair."""
    vectors, nearest = shop.shared["item_vectors"], shop.shared["surroundings"].queries.cosine[:, 0]
    votes = votes_of(shop)
    voted = {
        query: of[["item", "relevant_weight"]].to_numpy().T
        for query, of in votes[votes["verdict"] > 0].groupby("query")
    }
    rows = []
    for _, query, item in pairs_of(shop):
        items, weights = voted[query]
        cosines = vectors[items.astype(int)] @ vectors[item]
        rows.append((np.average(cosines, weights=weights), cosines.max(), nearest[query]))
    return np.array(rows)


def votes_of(shop: Shop) -> pd.DataFrame:
    """A row a judgement of a near query, with the weight that it has of each kind."""
    _, near, judged = shop.shared["surroundings"]
    queries, width = near.index.shape
    voters = pd.DataFrame(
        {
            "query": np.repeat(np.arange(queries), width),
            "voter": near.index.ravel(),
            "kernel": np.exp((near.cosine.ravel() - 1) / KERNEL_WIDTH),
            "weight": near.weights().ravel(),
        }
    )
    voter, vote = np.nonzero(judged.verdicts)
    verdict = judged.verdicts[voter, vote]
    ballots = pd.DataFrame({"voter": voter, "item": judged.items[voter, vote], "verdict": verdict})
    ballots["share"] = 1 / ballots.groupby(["voter", "verdict"])["item"].transform("size")
    votes = voters.merge(ballots, on="voter")
    votes["opinion"] = votes["kernel"] * ((votes["verdict"] > 0) - np.mean(verdict > 0))
    spread = votes["weight"] * votes["share"]
    votes["relevant_weight"] = spread.where(votes["verdict"] > 0, 0)
    votes["irrelevant_weight"] = spread.where(votes["verdict"] < 0, 0)
    return votes


def with_codes(table: pd.DataFrame, sids: np.ndarray) -> pd.DataFrame:
    """A table with a column of codes a level."""
    return table.assign(**{f"c{level}": sids[:, level] for level in range(len(SIZES))})


def pairs_with_codes(shop: Shop) -> pd.DataFrame:
    """The pairs, with the codes of their items."""
    query, item = shop.shared["query_index"], shop.shared["item_index"]
    pairs = pd.DataFrame({"query": query, "item": item})
    return with_codes(pairs, shop.of_sids["sids"][item])


def joined(pairs: pd.DataFrame, found: pd.DataFrame, *, level: int, **how: tuple) -> pd.DataFrame:
    """Aggregates what was found for a query by its first codes, and joins it to the pairs."""
    keys = ["query", *(f"c{number}" for number in range(level + 1))]
    grouped = found.groupby(keys, as_index=False).agg(**how)
    return pairs[keys].merge(grouped, on=keys, how="left").fillna(0)


def beams_of(shop: Shop) -> pd.DataFrame:
    """A row a beam."""
    sids, log_probs, _ = shop.of_sids["beams"]
    queries = len(np.unique(shop.shared["query_index"]))
    table = pd.DataFrame(
        {
            "query": np.repeat(np.arange(queries), BEAMS),
            "rank": np.tile(np.arange(1, BEAMS + 1), queries),
            "prob": np.exp(log_probs[:queries]).ravel(),
        }
    )
    return with_codes(table, sids[:queries].reshape(-1, len(SIZES)))


def plain_match(shop: Shop) -> np.ndarray:
    """The group `paper_match`."""
    pairs, beams = pairs_with_codes(shop), beams_of(shop)
    depth = np.zeros(len(pairs))
    for level in range(len(SIZES)):
        found = joined(pairs, beams, level=level, count=("rank", "count"))["count"]
        depth = np.where(found > 0, 2.0 ** (level + 1 - len(SIZES)), depth)
    return depth[:, None]


def plain_prefix(shop: Shop) -> np.ndarray:
    """The group `prefix`."""
    pairs, beams = pairs_with_codes(shop), beams_of(shop)
    masses, ranks = [], []
    for level in range(len(SIZES)):
        found = joined(pairs, beams, level=level, mass=("prob", "sum"), rank=("rank", "min"))
        masses.append(found["mass"])
        ranks.append(np.where(found["rank"] > 0, 1 / found["rank"].where(found["rank"] > 0, 1), 0))
    log_probs = np.maximum(shop.of_sids["pair_log_probs"], MIN_LOG_PROB)
    share = beams["prob"] / beams.groupby("query")["prob"].transform("sum")
    entropy = (-share * np.log(share)).groupby(beams["query"]).sum()
    pmi = log_probs - shop.of_sids["log_shares"][shop.shared["item_index"]]
    of_beams = np.stack([*masses, *ranks], axis=1)
    return np.concatenate(
        [of_beams, log_probs, pmi, entropy[pairs["query"]].to_numpy()[:, None]], axis=1
    )


def plain_neighbours(shop: Shop) -> np.ndarray:
    """The group `neighbours`."""
    pairs, near = pairs_with_codes(shop), shop.shared["surroundings"].items
    queries, width = near.index.shape
    items = pd.DataFrame(
        {
            "query": np.repeat(np.arange(queries), width),
            "rank": np.tile(np.arange(1, width + 1), queries),
            "weight": near.weights().ravel(),
        }
    )
    items = with_codes(items, shop.of_sids["sids"][near.index.ravel()])
    votes = votes_of(shop)
    votes = with_codes(votes, shop.of_sids["sids"][votes["item"]])
    sides = ("relevant_weight", "irrelevant_weight")
    totals = [votes.groupby("query")[side].sum()[pairs["query"]].to_numpy() for side in sides]
    columns: list[list] = [[] for _ in range(7)]
    for level in range(len(SIZES)):
        keys = ["query", *(f"c{number}" for number in range(level + 1))]
        heaviest = items.groupby(keys)["weight"].sum().groupby("query").max()[pairs["query"]]
        found = joined(
            pairs,
            items,
            level=level,
            mass=("weight", "sum"),
            count=("rank", "count"),
            rank=("rank", "min"),
        )
        voted = joined(
            pairs,
            votes,
            level=level,
            heard=("kernel", "sum"),
            opinion=("opinion", "sum"),
            **{side: (side, "sum") for side in sides},
        )
        of_level = (
            found["mass"],
            found["count"] / width,
            np.where(found["rank"] > 0, 1 / found["rank"].where(found["rank"] > 0, 1), 0),
            found["mass"] / heaviest.to_numpy(),
            voted[sides[0]] / totals[0],
            voted[sides[1]] / totals[1],
            voted["opinion"] / (voted["heard"] + SHRINKAGE),
        )
        for column, values in zip(columns, of_level, strict=True):
            column.append(values)
    return np.stack([values for of_name in columns for values in of_name], axis=1)


if __name__ == "__main__":
    main()
