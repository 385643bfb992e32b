"""Semantic identifiers for e-commerce relevance, in JAX.

Rooms are imported when they are first used: `dsirm_jax.metrics.ranking` needs no other import, and
`import dsirm_jax` alone brings nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsirm_jax import encoder, generator, metrics, quantizer, relevance, serving, sids
    from dsirm_jax.io.errors import InputError

__version__ = "0.2.0"

__all__ = [
    "InputError",
    "__version__",
    "encoder",
    "generator",
    "metrics",
    "quantizer",
    "relevance",
    "serving",
    "sids",
]


def __getattr__(name: str) -> Any:
    if name == "InputError":
        from dsirm_jax.io.errors import InputError

        return InputError
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
