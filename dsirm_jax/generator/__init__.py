"""Query text to semantic identifiers: a network under a trie constraint.

It can be used alone, without gin: docs/generator.md has an example. What this package names is
imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "FittedGenerator": "fitted",
    "GeneratorObjective": "losses",
    "fit_generator": "fitting",
    "load": "fitted",
    "predict_sids": "predict",
    "save": "fitted",
    "score_pairs": "score",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
