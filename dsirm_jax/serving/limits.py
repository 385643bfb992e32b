"""Numbers that are what they have to be, or an error that names them."""

from __future__ import annotations

from numbers import Real

from dsirm_jax.io.checks import is_whole
from dsirm_jax.io.errors import InputError


def whole(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Returns a whole number within bounds.

    Args:
      name: whose value it is, for the message.
      value: the number, a Python integer or one of NumPy's.
      least: lower bound, inclusive.
      most: upper bound, inclusive; None: there is none.

    Raises:
      InputError: it is no whole number, or lies outside.
    """
    if not is_whole(value, least=least) or (most is not None and value > most):
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise InputError(f"{name} is {value!r}; give a whole number {bounds}")
    return int(value)


def seconds(name: str, value: object, *, most: float) -> float:
    """Returns a time in seconds, from 0 to `most`.

    Args:
      name: whose value it is, for the message.
      value: the number.
      most: upper bound, inclusive.

    Raises:
      InputError: it is no number, NaN, or lies outside.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or value < 0 or not value <= most:
        raise InputError(f"{name} is {value!r}; give seconds from 0 to {most:,.0f}")
    return float(value)
