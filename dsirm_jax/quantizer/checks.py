"""What a number that gin binds has to be."""

from __future__ import annotations

import math
import numbers

from dsirm_jax.io.errors import InputError


def check_whole(binding: str, value: object, *, least: int) -> None:
    """Raises InputError where a binding is no whole number, or too low a one.

    Args:
      binding: its name, such as `Upkeep.init_rows`.
      value: what is bound.
      least: the lowest that it may be.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and value >= least):
        raise InputError(
            f"gin binding {binding} is {value!r}; bind a whole number of at least {least}"
        )


def check_number(
    binding: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float = math.inf,
) -> None:
    """Raises InputError where a binding is no number, not a finite one, or out of its range.

    Args:
      binding: its name, such as `Upkeep.decay`.
      value: what is bound.
      least: the lowest that it may be.
      above: what it has to exceed.
      below: what it has to stay under.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    high_enough = number and (least is None or value >= least) and (above is None or value > above)
    if not (high_enough and value < below):
        bounds = [
            *([] if least is None else [f"of at least {least:g}"]),
            *([] if above is None else [f"above {above:g}"]),
            *([] if math.isinf(below) else [f"below {below:g}"]),
        ]
        raise InputError(
            f"gin binding {binding} is {value!r}; bind a number {' and '.join(bounds)}"
        )
