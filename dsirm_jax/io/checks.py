"""Checks of numbers that gin binds; what is wrong is named with its binding."""

from __future__ import annotations

import numbers
from typing import Any

from dsirm_jax.io.errors import InputError


def check_whole(binding: str, value: Any, *, least: int) -> None:
    """Checks that a value is a whole number.

    Args:
      binding: name in gin, such as `Training.batch_size`.
      value: what is bound to it.
      least: the smallest one allowed.

    Raises:
      InputError: it is none, or smaller.

    Example:
      >>> check_whole("Training.batch_size", 0, least=1)
      Traceback (most recent call last):
      dsirm_jax.io.errors.InputError: gin binding Training.batch_size is 0; bind a whole number of \
at least 1
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (is_whole and value >= least):
        raise InputError(
            f"gin binding {binding} is {value!r}; bind a whole number of at least {least}"
        )


def check_number(
    binding: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Checks that a value is a number within bounds; NaN never is.

    Args:
      binding: name in gin, such as `Training.learning_rate`.
      value: what is bound to it.
      least: lower bound, allowed itself.
      most: upper bound, allowed itself.
      above: lower bound, not allowed itself.
      below: upper bound, not allowed itself; infinity allows every finite number.

    Raises:
      InputError: it is none, or outside.

    Example:
      >>> check_number("Training.held_out", 1.0, least=0, below=1)
      Traceback (most recent call last):
      dsirm_jax.io.errors.InputError: gin binding Training.held_out is 1.0; bind a number of at \
least 0, below 1
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        is_number
        and value == value  # NaN is not
        and (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
    ):
        return
    bounds = {"of at least": least, "above": above, "of at most": most, "below": below}
    rule = ", ".join(f"{name} {bound}" for name, bound in bounds.items() if bound is not None)
    rule = rule.replace("below inf", "finite")
    raise InputError(f"gin binding {binding} is {value!r}; bind a number {rule}".rstrip())
