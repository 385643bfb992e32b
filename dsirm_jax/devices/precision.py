"""How precisely devices multiply: one decision for everything that the package computes.

Asked for nothing, a GPU rounds the factors of a float32 product to TF32 and a TPU to bfloat16, and
some of what a SID, a score or a stored vector is made of comes out as another one than on a CPU. So
whatever these come from is `exact`: it multiplies in full float32, on every device. Training alone
may be faster, see `training.settings.Training.matmul_precision`, but for the codes that a quantizer
picks.

Both decorators hold while a function is traced, whoever traces it, and change no setting of the
process. They stand below `jax.jit`, and around derivatives: the products of a derivative with a
rule of its own are made where it is taken. Factors of bfloat16 are multiplied as they are, at any
precision, and their products summed in float32; a CPU multiplies float32 in full at any.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

FASTEST, FULL = "default", "highest"
PRECISIONS = (FASTEST, "high", FULL)
"""Of float32 products, as `jax.lax.Precision` names them: on a TPU by one, three or six products of
bfloat16; on an NVIDIA GPU in TF32, in TF32 too, or in float32."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def multiplying(
    precision: str,
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Returns a decorator of functions whose float32 products are to have a precision.

    A decorated function that such a function calls has its own.

    Args:
      precision: one of `PRECISIONS`.
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @functools.wraps(function)
        def traced(*arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
            import jax

            with jax.default_matmul_precision(precision):
                return function(*arguments, **keywords)

        return traced

    return decorate


def exact(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Returns a function whose float32 products are in full float32 on every device."""
    return multiplying(FULL)(function)
