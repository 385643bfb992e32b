"""Training curves from TensorBoard's event files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsirm_jax.run.layout import FULL, Layout

POINTS_SHOWN = 240
Points = list[tuple[int, float]]


def read_curves(logs: Path) -> dict[str, Points]:
    """Reads the scalars of a folder's event files.

    Args:
      logs: folder with event files.

    Returns:
      Finite points (step, value) in ascending steps, by tag.
    """
    return {
        tag: [(step, value) for step, (_, value) in points.items()]
        for tag, points in read_points(logs).items()
    }


def read_points(logs: Path) -> dict[str, dict[int, tuple[float, float]]]:
    """Reads the scalars of a folder's event files, with their times.

    A resumed run may log a step again, in a file of its own; what was written last counts.

    Args:
      logs: folder with event files; one of them may be written to meanwhile.

    Returns:
      Seconds since 1970 and finite value by step, in ascending steps, by tag.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    latest: dict[str, dict[int, tuple[float, float]]] = {}
    for file in sorted(logs.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            for logged in event.summary.value:
                points = latest.setdefault(logged.tag, {})
                value = float(tensor_util.make_ndarray(logged.tensor))
                points[event.step] = max(
                    points.get(event.step, (-math.inf, 0.0)),
                    (event.wall_time, value),
                    key=lambda timed: timed[0],
                )
    return {
        tag: {step: point for step, point in sorted(points.items()) if math.isfinite(point[1])}
        for tag, points in latest.items()
    }


def thinned(points: Points, *, most: int = POINTS_SHOWN) -> Points:
    """Returns at most `most` points, each the mean of its neighbours when there are more."""
    if len(points) <= most:
        return points
    parts = np.array_split(np.asarray(points, np.float64), most)
    return [(round(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def training_curves(layout: Layout, *, rungs: Mapping[str, Layout]) -> list[dict[str, Any]]:
    """Returns the curves of every learnt stage, those of several rungs together.

    Args:
      layout: the run.
      rungs: the rungs with SIDs of their own, each with its layout.

    Returns:
      `stage` and `tags`: by tag and rung, the points. `loss` comes first.
    """
    folders = {"encode": {FULL: layout.stage("encode")}}
    for stage in ("quantize", "generate"):
        folders[stage] = {rung: at.stage(stage) for rung, at in rungs.items()}
    heads = sorted(layout.stage("relevance").glob("*/logs"))
    folders["relevance"] = {logs.parent.name: logs.parent for logs in heads}
    curves = []
    for stage, by_rung in folders.items():
        tags: dict[str, dict[str, Points]] = {}
        for rung, folder in by_rung.items():
            for tag, points in read_curves(folder / "logs").items():
                if points:
                    tags.setdefault(tag, {})[rung] = thinned(points)
        ordered = sorted(tags, key=lambda tag: (tag != "loss", tag))
        if tags:
            curves.append({"stage": stage, "tags": {tag: tags[tag] for tag in ordered}})
    return curves
