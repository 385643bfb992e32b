"""Collects from a MODEL_DIR what the page shows, as plain values; None where a stage is missing."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from dsirm_jax.report import curves, errors, examples, tree
from dsirm_jax.report.catalogue import read_page_items
from dsirm_jax.report.verdict import verdict
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.run.record import RECORD

if TYPE_CHECKING:
    from dsirm_jax.relevance.nearest.lists import Measured

SHOWN_VERSIONS = ("dsirm-jax", "jax", "flax", "optax", "orbax-checkpoint", "seqio", "tensorflow")


def gather(layout: Layout) -> dict[str, Any]:
    """Returns everything that the page shows.

    Args:
      layout: the run; only the tables of `prepare`, or a ladder, must be there.
    """
    metrics, ladder = read_json(layout.metrics), read_json(layout.ladder)
    judged = ladder or metrics  # a ladder judges all queries, a run its test queries alone
    configs = [path for path in (layout.config, layout.ladder_config) if path.is_file()]
    rungs = rungs_with_sids(layout)
    health = {rung: read_json(at.health) for rung, at in rungs.items()}
    return {
        "counts": counts(layout) if layout.judgements.is_file() else None,
        "metrics": metrics,
        "ladder": ladder,
        "changes": errors.changes(layout),
        "verdict": verdict(judged) if judged else None,
        "health": health,
        "curves": curves.training_curves(layout, rungs=rungs),
        "summary": read_json(layout.stage("prepare") / "summary.json"),
        "times": stage_times(layout),
        "lists": lists_found(layout),
        "versions": versions(),
        "config": configs[0].read_text("utf-8") if configs else None,
    } | (of_sids(layout, health[FULL]) if FULL in health else {"tree": None, "queries": None})


def counts(layout: Layout) -> dict[str, int]:
    """Returns the numbers of items, queries and judgements that came in."""
    return {
        "items": pq.read_metadata(layout.items).num_rows,
        "queries": pq.read_metadata(layout.queries).num_rows,
        "judgements": pq.read_metadata(layout.judgements).num_rows,
    }


def of_sids(layout: Layout, health: dict[str, Any]) -> dict[str, Any]:
    """Returns the tree of the full model's SIDs, the test queries, and the titles of both."""
    catalogue = read_page_items(layout, sizes=health["sizes"])
    nested = tree.sid_tree(catalogue)
    generated = layout.query_sids.is_file()
    queries = examples.judged_queries(layout, catalogue) if generated else None
    rows = tree.tree_rows(nested["nodes"])
    rows += examples.example_rows(queries["examples"]) if queries else []
    return {"tree": nested, "queries": queries, "titles": catalogue.titles_of(rows)}


def rungs_with_sids(layout: Layout) -> dict[str, Layout]:
    """Returns the rungs whose items have SIDs, each with its layout, the full model first."""
    ladder = sorted(path.name for path in (layout.model_dir / "ablation").glob("*"))
    rungs = {rung: layout.for_rung(rung) for rung in (FULL, *ladder)}
    return {rung: at for rung, at in rungs.items() if at.health.is_file() and at.sids.is_file()}


def stage_times(layout: Layout) -> dict[str, float]:
    """Returns the seconds that every finished stage took, in the order of the stages."""
    order = ("prepare", "encode", "quantize", "generate", "features", "match", "relevance")
    seconds = {}
    for stage in order:
        for folder in (layout.stage(stage), *layout.model_dir.glob(f"ablation/*/{stage}")):
            record = read_json(folder / RECORD)
            if record and record["finished"]:
                seconds[record["stage"]] = record["seconds"]
    return seconds


def lists_found(layout: Layout) -> dict[str, Measured]:
    """Returns how well the nearest items and training queries are found, where lists find them."""
    from dsirm_jax.relevance.nearest.lists import lists_file, load
    from dsirm_jax.relevance.nearest.search import ITEMS, VOTERS

    names = {ITEMS: "items", VOTERS: "training queries"}
    files = {about: lists_file(layout.stage("features"), name) for name, about in names.items()}
    return {
        about: load(file, otherwise="run `dsirm features` again").measured
        for about, file in files.items()
        if file.is_file()
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the main libraries."""
    installed = {"python": platform.python_version()}
    for name in SHOWN_VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def read_json(path: Path) -> Any:
    """Returns the contents of a JSON file, None when there is none."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
