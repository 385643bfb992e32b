"""Collects what the page shows from a MODEL_DIR, as plain values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int

from dsirm_jax.data.schema import TEST
from dsirm_jax.layout import FULL, Layout
from dsirm_jax.relevance.tables import read_beams
from dsirm_jax.sids.codes import read_sids
from dsirm_jax.sids.prefix_match import Beams

CHILDREN_SHOWN = 24
TITLES_SHOWN = 3
TITLE_LENGTH = 90
EXAMPLES_PER_SEGMENT = 12
BEAMS_SHOWN = 5
JUDGED_SHOWN = 8


def read_json(path: Path) -> Any:
    """Returns the contents of a JSON file, None when there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


def rungs_with_sids(layout: Layout) -> list[str]:
    """Returns the full model and the rungs of the ladder that have SIDs of their own."""
    folders = sorted((layout.model_dir / "ablation").glob("*/quantize/health.json"))
    return [FULL, *(path.parts[-3] for path in folders)]


def curves(logs: Path) -> dict[str, list[tuple[int, float]]]:
    """Reads the scalars of TensorBoard event files; of a step written twice the last counts.

    Args:
      logs: folder with event files.

    Returns:
      Points (step, value) in ascending steps, by tag.
    """
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    by_tag: dict[str, dict[int, float]] = {}
    for file in sorted(logs.glob("events.out.tfevents.*")):
        events = event_accumulator.EventAccumulator(
            str(file), size_guidance={event_accumulator.TENSORS: 0}
        ).Reload()
        for tag in events.Tags()["tensors"]:
            points = by_tag.setdefault(tag, {})
            for event in events.Tensors(tag):
                points[event.step] = float(tensor_util.make_ndarray(event.tensor_proto))
    return {tag: sorted(points.items()) for tag, points in by_tag.items()}


def training_curves(layout: Layout) -> list[dict[str, Any]]:
    """Returns the curves of every learnt stage of every rung, in the order of the stages."""
    folders = [("encode", layout.stage("encode"))]
    for stage in ("quantize", "generate"):
        for rung in rungs_with_sids(layout):
            name = stage if rung == FULL else f"{stage}, {rung}"
            folders.append((name, layout.for_rung(rung).stage(stage)))
    heads = sorted(layout.stage("relevance").glob("*/logs"))
    folders += [(f"relevance, {path.parent.name}", path.parent) for path in heads]
    found = [{"name": name, "curves": curves(folder / "logs")} for name, folder in folders]
    return [stage for stage in found if stage["curves"]]


def stage_times(layout: Layout) -> list[dict[str, Any]]:
    """Returns name and seconds of every finished stage."""
    records = [
        read_json(path)
        for pattern in ("*/stage.json", "ablation/*/*/stage.json")
        for path in sorted(layout.model_dir.glob(pattern))
        if "replaced" not in path.parts
    ]
    return [
        {"stage": record["stage"], "seconds": record["seconds"]}
        for record in sorted(records, key=lambda record: record["stage"])
        if record.get("finished")
    ]


def shortened(text: str) -> str:
    """Returns a title at a length that fits a line."""
    return text if len(text) <= TITLE_LENGTH else text[: TITLE_LENGTH - 1].rstrip() + "…"


class Catalogue:
    """Titles, categories and SIDs of the items, for look-ups by prefix."""

    def __init__(self, layout: Layout):
        table = pq.read_table(layout.items, columns=["item_id", "title", "category"])
        self.item_ids = table["item_id"].to_pylist()
        self.titles = table["title"].to_pylist()
        self.categories = [path[-1] if path else None for path in table["category"].to_pylist()]
        self.sids = read_sids(layout.sids).sids
        self.order = np.lexsort(self.sids.T[::-1])

    def dominant_category(self, rows: Sequence[int]) -> str | None:
        """Returns the most frequent category of some items; the first by name of several."""
        counts = Counter(self.categories[row] for row in rows if self.categories[row])
        return min(counts, key=lambda name: (-counts[name], name)) if counts else None

    def with_prefix(self, prefix: Sequence[int]) -> Int[np.ndarray, " item"]:
        """Returns the items whose SID starts with a prefix."""
        return np.flatnonzero((self.sids[:, : len(prefix)] == np.asarray(prefix)).all(axis=1))


def sid_tree(catalogue: Catalogue) -> dict[str, Any]:
    """Returns the tree of SIDs: of each node the largest children, the rest as a number.

    Returns:
      A node: `code`, `items` (count), `category` (dominant), `titles` (a few), `children` and
      `hidden` (children left out).
    """

    def node(code: int | None, rows: np.ndarray, level: int) -> dict[str, Any]:
        shown = [shortened(catalogue.titles[row]) for row in rows[:TITLES_SHOWN]]
        found = {"code": code, "items": len(rows), "category": catalogue.dominant_category(rows)}
        if level == catalogue.sids.shape[1]:
            return found | {"titles": shown, "children": [], "hidden": 0}
        codes, starts, counts = np.unique(
            catalogue.sids[rows, level], return_index=True, return_counts=True
        )
        largest = np.argsort(-counts, kind="stable")
        kept = largest if level == 0 else largest[:CHILDREN_SHOWN]
        children = [
            node(int(codes[i]), rows[starts[i] : starts[i] + counts[i]], level + 1) for i in kept
        ]
        return found | {"titles": shown, "children": children, "hidden": len(codes) - len(kept)}

    # Sorted by SID, the items below any prefix are contiguous.
    return node(None, catalogue.order, 0)


def examples(layout: Layout, catalogue: Catalogue, *, seed: int = 0) -> list[dict[str, Any]]:
    """Returns test queries with their predicted SIDs and their judged items.

    The same number of every segment, half of them hits (a beam is the SID of a relevant item) as
    far as there are.

    Args:
      layout: the run.
      catalogue: its items.
      seed: of the choice.
    """
    queries = pq.read_table(layout.queries).to_pydict()
    judgements = pq.read_table(
        layout.judgements,
        columns=["query_index", "item_index", "label", "relevant"],
        filters=[("split", "=", TEST)],
    ).to_pydict()
    predictions = pq.read_table(layout.predictions, filters=[("split", "=", TEST)]).to_pydict()
    scores = {name: predictions[name] for name in predictions if name not in _NOT_SCORES}
    score_of = {
        pair: {rung: values[row] for rung, values in scores.items()}
        for row, pair in enumerate(zip(predictions["query"], predictions["item_id"]))
    }
    beams = read_beams(layout.query_sids, levels=catalogue.sids.shape[1])
    judged_by_query: dict[int, list[dict[str, Any]]] = {}
    for row, query in enumerate(judgements["query_index"]):
        item = judgements["item_index"][row]
        judged_by_query.setdefault(query, []).append(
            {
                "title": shortened(catalogue.titles[item]),
                "label": judgements["label"][row],
                "relevant": judgements["relevant"][row],
                "sid": catalogue.sids[item].tolist(),
                "depth": _depth(beams, query, catalogue.sids[item]),
                "scores": score_of[queries["query"][query], catalogue.item_ids[item]],
            }
        )
    levels = catalogue.sids.shape[1]
    generator = np.random.Generator(np.random.Philox(key=seed))
    chosen: list[int] = []
    for segment in dict.fromkeys(sorted(queries["segment"])):
        of_segment = [q for q in judged_by_query if queries["segment"][q] == segment]
        of_segment = generator.permutation(sorted(of_segment)).tolist()
        hit = {
            q: any(j["relevant"] and j["depth"] == levels for j in judged_by_query[q])
            for q in of_segment
        }
        hits, misses = ([q for q in of_segment if hit[q] is kind] for kind in (True, False))
        half = EXAMPLES_PER_SEGMENT // 2
        taken_hits = hits[: max(half, EXAMPLES_PER_SEGMENT - len(misses))]
        chosen += [*taken_hits, *misses[: EXAMPLES_PER_SEGMENT - len(taken_hits)]]
    return [
        {
            "query": queries["query"][query],
            "segment": queries["segment"][query],
            "beams": [_beam(catalogue, beams, query, rank) for rank in _shown_beams(beams, query)],
            "judged": sorted(judged_by_query[query], key=_by_full_score)[:JUDGED_SHOWN],
            "unshown": max(0, len(judged_by_query[query]) - JUDGED_SHOWN),
        }
        for query in chosen
    ]


_NOT_SCORES = ("query", "item_id", "label", "split")


def _by_full_score(judged: dict[str, Any]) -> float:
    return -judged["scores"].get(FULL, 0.0)


def _shown_beams(beams: Beams, query: int) -> list[int]:
    return np.flatnonzero(beams.valid[query])[:BEAMS_SHOWN].tolist()


def _beam(catalogue: Catalogue, beams: Beams, query: int, rank: int) -> dict[str, Any]:
    sid = beams.sids[query, rank].tolist()
    rows = catalogue.with_prefix(sid)
    return {
        "sid": sid,
        "probability": float(np.exp(beams.log_probs[query, rank])),
        "category": catalogue.dominant_category(rows),
        "items": len(rows),
        "titles": [shortened(catalogue.titles[row]) for row in rows[:TITLES_SHOWN]],
    }


def _depth(beams: Beams, query: int, sid: np.ndarray) -> int:
    """The deepest level at which a beam agrees with an item's SID."""
    agrees = np.cumprod(beams.sids[query] == sid, axis=1) * beams.valid[query][:, None]
    return int(agrees.sum(axis=1).max(initial=0))
