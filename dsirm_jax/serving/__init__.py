"""What a finished run becomes to be served: one folder, and what answers from it.

    from dsirm_jax.serving import Scorer, ScorerSettings

Each name is imported when it is first used, so that no command waits for JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Branch": "scorer.answers",
    "Bundle": "bundle.contents",
    "Item": "scorer.answers",
    "Overloaded": "scorer.batching",
    "QuerySids": "scorer.answers",
    "Scored": "scorer.answers",
    "Scorer": "scorer.scorer",
    "ScorerSettings": "scorer.settings",
    "open_bundle": "bundle.contents",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
