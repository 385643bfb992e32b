"""The features of pairs as one would write them with pandas, a row at a time."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from relevance_shop import BEAMS, SIZES, Shop

from dsirm_jax.relevance.features.lexical import BM25_B, BM25_K1
from dsirm_jax.sids.prefix_match import (
    KERNEL_WIDTH,
    MIN_LOG_PROB,
    SHRINKAGE,
)


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
        near, others = items.row[query], items.row[query] != item
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
    queries, width = near.row.shape
    voters = pd.DataFrame(
        {
            "query": np.repeat(np.arange(queries), width),
            "voter": near.row.ravel(),
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
    queries, width = near.row.shape
    items = pd.DataFrame(
        {
            "query": np.repeat(np.arange(queries), width),
            "rank": np.tile(np.arange(1, width + 1), queries),
            "weight": near.weights().ravel(),
        }
    )
    items = with_codes(items, shop.of_sids["sids"][near.row.ravel()])
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
