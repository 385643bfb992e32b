"""Records of version 0.2, which sealed nothing: what they say, in the words of today."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD_KEYS = {"bindings", "fingerprint", "finished", "inputs", "stage", "version"}
QUANTIZER_KINDS = {
    "rq_vae": ("RqVae", ("hidden_dim", "latent_dim")),
    "residual_kmeans": ("ResidualKmeans", ()),
    "hierarchical_kmeans": ("HierarchicalKmeans", ()),
}
"""Kinds of quantizers that were texts: their classes, and the settings that moved into these."""
MOVED_SETTINGS = ("kind", "hidden_dim", "latent_dim")
OBJECTIVES = {"quantize": "QuantizerObjective", "generate": "GeneratorObjective"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OldRecord:
    """What a `stage.json` of version 0.2 says.

    Attributes:
      stage: name of the stage's folder below MODEL_DIR.
      bindings: arguments of the stage's function as JSON values, in the words of today.
      inputs: fingerprints of the stages that it read.
      finished: whether it is done.
      fingerprint: of bindings, inputs and the package's version.
      seconds: that it took, when it is done.
    """

    stage: str
    bindings: Mapping[str, Any]
    inputs: Mapping[str, str]
    finished: bool
    fingerprint: str
    seconds: float | None = None


def old_record(path: Path) -> OldRecord | None:
    """Returns what a record says; None where it is none of version 0.2.

    Args:
      path: `stage.json`.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.keys() - {"seconds"} != RECORD_KEYS:
        return None
    if not re.fullmatch(r"0\.2\..*", str(content.pop("version"))):
        return None
    name = content["stage"].rpartition("/")[2]
    return OldRecord(**content | {"bindings": _in_words_of_today(name, content["bindings"])})


def stale_parts(
    old: OldRecord,
    *,
    bindings: Mapping[str, Any],
    inputs: Mapping[str, str | None],
) -> list[str]:
    """Returns why a stage cannot be taken up as it is, a few words each; nothing where it can.

    Args:
      old: its record.
      bindings: of the stage as it would run now.
      inputs: of the stages that it reads, the fingerprint that version 0.2 gave them, by name; None
        where they have run since.
    """
    now = dict(bindings)
    if old.bindings.get("files") and _are_untouched(old.bindings["files"], now.get("files", {})):
        now["files"] = old.bindings["files"]
    parts = {"binding": (old.bindings, now), "input": (old.inputs, inputs)}
    return [
        f"{kind} {name}"
        for kind, (before, after) in parts.items()
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _are_untouched(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Returns whether files have the sizes and times of change that version 0.2 recorded."""
    if before.keys() != now.keys():
        return False
    for file, known in before.items():
        path = Path(file)
        if path.is_file():
            state = path.stat()
            if known != [state.st_size, state.st_mtime_ns]:
                return False
        elif known != now[file]:  # of a remote store, as it is today
            return False
    return True


def _in_words_of_today(stage: str, bindings: Mapping[str, Any]) -> dict[str, Any]:
    described = dict(bindings)
    objective = described.get("objective")
    if isinstance(objective, dict) and objective.get("") == "Objective" and stage in OBJECTIVES:
        described["objective"] = objective | {"": OBJECTIVES[stage]}
    config = described.get("config")
    if (
        isinstance(config, dict)
        and isinstance(config.get("kind"), str)
        and config["kind"] in QUANTIZER_KINDS
    ):
        name, settings = QUANTIZER_KINDS[config["kind"]]
        kept = {key: value for key, value in config.items() if key not in MOVED_SETTINGS}
        moved = {key: config[key] for key in settings if key in config}
        described["config"] = kept | {"kind": {"": name} | moved}
    return described
