"""Dense vectors to semantic identifiers: the query-bridged residual quantizer, and other kinds.

It can be used alone, without gin: docs/quantizer.md has an example. What this package names is
imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "FittedQuantizer": "fitted",
    "QuantizerConfig": "model",
    "QuantizerObjective": "losses",
    "TrainingItems": "training_items",
    "Upkeep": "codebooks",
    "assign_vectors": "assign",
    "load": "fitted",
    "relative_error": "health",
    "save": "fitted",
    "train": "fitting",
}
_ELSEWHERE = {
    "Training": "dsirm_jax.training.settings",
    "codebook_health": "dsirm_jax.metrics.codebook",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(_ELSEWHERE[name]), name)
    if name[:1].isupper():
        from dsirm_jax.io.errors import InputError
        from dsirm_jax.io.kinds import class_named

        try:
            return class_named(name, home=f"{__name__}.kinds")
        except InputError:
            pass
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_ELSEWHERE])
