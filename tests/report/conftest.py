"""A finished run of a tiny shop, written by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.metrics import codebook
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import sid_writer, write_versioned
from dsirm_jax.training import events

HOSTILE = "</script><img src=x onerror=alert(1)> \"quoted\" & 'ṩ' 👟 שלום {{ 7 * 7 }} \u2028"
SIZES = (2, 2, 3)
TITLES = ["red shoe", HOSTILE, "blue shoe", "kettle", "toy <b>kettle</b>"]
CATEGORIES = [["Shoes", "Boots"], ["Shoes", "Boots"], None, ["Kitchen", "Kettles"], ["Toys"]]
SIDS = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 2], [1, 0, 1], [1, 0, 2]], np.int32)
QUERIES = ["shoes", HOSTILE, "tea", "untested"]
SEGMENTS = ["head", "tail", "tail", "tail"]
BEAMS = [[[0, 0, 0], [1, 0, 1]], [[0, 1, 2]], [[1, 0, 2]], [[0, 0, 0]]]
PROBABILITIES = [[0.5, 0.25], [0.125], [0.0625], [1.0]]
# (query, item, label): "shoes" finds item 1, HOSTILE misses item 3, "tea" two of its codes.
JUDGED = [(0, 1, "E"), (0, 2, "S"), (1, 3, "E"), (1, 2, "I"), (2, 3, "E")]


def lift(value, low, high):
    return {"value": value, "low": low, "high": high, "relative": value / 0.7}


@pytest.fixture
def hostile():
    """A text that breaks out of markup, attributes, scripts or templates if anything lets it."""
    return HOSTILE


@pytest.fixture
def layout(tmp_path):
    found = Layout(model_dir=tmp_path / "run")
    for at in (found, found.for_rung("unsupervised")):
        for stage in ("prepare", "quantize", "generate", "relevance"):
            at.stage(stage).mkdir(parents=True, exist_ok=True)
        with sid_writer(at.sids, version="v") as write:
            write(pa.array(list("abcde")), SIDS, np.ones(SIDS.shape), np.ones(len(SIDS)))
        first = np.array([path[0] if path else None for path in CATEGORIES], object)
        health = codebook.codebook_health(SIDS, SIZES, {"category": first})
        health |= {"sizes": SIZES, "pinned_categories": [], "reconstruction_error": 0.25}
        agreement = {"relevant": [0.5, 0.25, None], "irrelevant": [0.125, 0.0, 0.0]}
        health |= {"agreement": agreement}
        at.health.write_text(json.dumps(health))
    _write(found.items, item_id=list("abcde"), title=TITLES, category=CATEGORIES)
    _write(found.queries, query=QUERIES, segment=SEGMENTS)
    judged = {
        "query_index": [query for query, _, _ in JUDGED] + [3],
        "item_index": [item for _, item, _ in JUDGED] + [0],
        "query": [QUERIES[query] for query, _, _ in JUDGED] + ["untested"],
        "item_id": ["abcde"[item] for _, item, _ in JUDGED] + ["a"],
        "label": [label for *_, label in JUDGED] + ["E"],
        "relevant": [label == "E" for *_, label in JUDGED] + [True],
        "split": ["test"] * len(JUDGED) + ["train"],
    }
    _write(found.judgements, **judged)
    scores = {"no_sid": [0.5] * 6, "full": [0.25, 0.75, 0.5, 0.375, 1.0, 0.0]}
    _write(
        found.predictions,
        **{name: judged[name] for name in ("query", "item_id", "label", "relevant", "split")},
        **{rung: pa.array(values, pa.float32()) for rung, values in scores.items()},
    )
    beams = pa.table(
        {
            "query": QUERIES,
            "sids": pa.array(BEAMS, pa.list_(pa.list_(pa.int32()))),
            "log_probs": pa.array([np.log(p) for p in PROBABILITIES], pa.list_(pa.float32())),
        }
    )
    write_versioned(found.query_sids, beams, version="v")
    values = {
        rung: {"roc_auc": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        for rung, value in (("no_sid", 0.7), ("unsupervised", 0.88), ("full", 0.9))
    }
    lifts = {
        "full": {"rung": "full", "over": "no_sid", "roc_auc": lift(0.2, 0.05, 0.3)},
        "full over unsupervised": {
            "rung": "full",
            "over": "unsupervised",
            "roc_auc": lift(0.02, -0.01, 0.05),
        },
    }
    part = {"queries": 3, "pairs": 5, "rungs": values, "lifts": lifts}
    segments = {"head": part | {"queries": 1}, "tail": part | {"queries": 2}}
    whole = {**part, "resamples": 100, "segments": segments}
    found.metrics.write_text(json.dumps({**whole, "leak": part}))
    found.ladder.parent.mkdir()
    found.ladder.write_text(json.dumps({**whole, "folds": 5, "seeds": 2}))
    summary = {
        "items": {
            "read": 8,
            "kept": 5,
            "rejected": 3,
            "reasons": {"empty title": 2, "duplicate item_id": 1},
            "with_description": 0,
            "with_brand": 2,
            "with_colour": 5,
            "with_category": 4,
            "categories": 3,
            "largest_categories": {HOSTILE: 2, "Kitchen": 1},
            "title_words": {"1-2": 4, "3-4": 0, "5-8": 0, "9-16": 1, "17-32": 0, "33+": 0},
        },
        "judgements": {
            "read": 7,
            "kept": 7,
            "rejected": 0,
            "reasons": {},
            "pairs": 6,
            "labels": {"E": 4, HOSTILE: 2},
        },
        "queries": {
            "splits": {
                "train": {"queries": 1, "judgements": 1, "relevant": 1},
                "head": {"queries": 0, "judgements": 0, "relevant": 0},
                "test": {"queries": 3, "judgements": 5, "relevant": 3},
            },
            "segments": {"head": 1, "torso": 0, "tail": 3},
            "query_words": {"1": 3, "2": 0, "3-4": 0, "5-8": 0, "9-16": 1, "17+": 0},
            "judgements_per_query": {"1": 2, "2-3": 2, "4-7": 0, "8-15": 0, "16-31": 0, "32+": 0},
        },
        "vocabulary": {"pieces": 900},
    }
    (found.stage("prepare") / "summary.json").write_text(json.dumps(summary))
    record = {"stage": "prepare", "finished": True, "seconds": 12.3}
    (found.stage("prepare") / "stage.json").write_text(json.dumps(record))
    found.config.write_text(f"# {HOSTILE}\nSEED = 0\n", "utf-8")
    return found


@pytest.fixture
def logged(layout):
    """The same run with TensorBoard logs of the quantizer, which was resumed at step 2."""
    for at, runs in (
        (layout, [{1: 3.0, 2: 2.0}, {2: 1.5, 3: 1.0}]),
        (layout.for_rung("unsupervised"), [{1: 4.0, 3: 2.0}]),
    ):
        for run in runs:
            with events.writer(at.stage("quantize") / "logs") as write:
                for step, loss in run.items():
                    write(step, {"loss": loss, "commitment": 0.5})
    return layout


def _write(path, **columns):
    pq.write_table(pa.table(columns), path)
