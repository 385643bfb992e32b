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
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lines import print_heading, print_row, write
from relevance_plain import (
    plain_cosine,
    plain_lexical,
    plain_match,
    plain_neighbours,
    plain_prefix,
    plain_prf,
    plain_votes,
)
from relevance_shop import ITEMS_OF_QUERY, Shop, make
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits
from timing import compare

from dsirm_jax.relevance import groups as registry
from dsirm_jax.relevance import score, train
from dsirm_jax.relevance.calibration import Calibration
from dsirm_jax.relevance.compute import pair_features, rung_features
from dsirm_jax.relevance.features.group import PairContext
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.head import Head
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.heads.trees import BoostedTrees, classifier
from dsirm_jax.relevance.schema import FeatureTable, join
from dsirm_jax.training.settings import Training


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


if __name__ == "__main__":
    main()
