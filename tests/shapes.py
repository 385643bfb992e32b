"""Checks that arrays have the types and shapes that annotations name, where functions are called.

Other annotations are for readers: some name what is imported for them alone.
"""

from __future__ import annotations

import functools
import operator
import types
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from beartype import beartype
from jaxtyping import AbstractArray

ARRAYS = jax.Array | np.ndarray | np.generic


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that refuses arrays of other types and shapes."""
    if function.__name__ == "__init__":  # a pytree is made of whatever `jax.tree.map` returns
        return function
    function.__annotations__ = {
        name: _widened(hint) if _names_arrays(hint) else Any
        for name, hint in function.__annotations__.items()
    }
    return beartype(function)


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _names_arrays(hint: Any) -> bool:
    return _is_array(hint) or any(map(_names_arrays, typing.get_args(hint)))


def _widened(hint: Any) -> Any:
    """Returns a hint that takes NumPy's arrays for JAX's, as JAX does, and its scalars."""
    if _is_array(hint):
        # An array without axes is a scalar of NumPy after the next operation.
        array = ARRAYS if hint.array_type is jax.Array else hint.array_type | np.generic
        return hint.dtype[array, hint.dim_str]
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if not parts or origin is Callable:
        return hint
    parts = tuple(map(_widened, parts))
    return functools.reduce(operator.or_, parts) if origin is types.UnionType else origin[parts]
