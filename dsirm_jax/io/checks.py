"""Checks of settings, whose messages name the gin binding and what it may be."""

from __future__ import annotations

import math
import numbers
from typing import Any

from dsirm_jax.io.errors import InputError


def check_number(
    binding: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    whole: bool = False,
) -> None:
    """Raises InputError where a setting is no finite number, or is out of its range.

    Args:
      binding: what gin calls it, such as `Tables.items`.
      value: of the setting; NaN and booleans are no numbers.
      least: smallest legal value.
      most: largest legal value.
      above: legal values are above this.
      below: legal values are below this.
      whole: whether it has to be an integer.

    Example:
      >>> check_number("Curriculum.title_rate", 1.5, least=0, below=1)
      Traceback (most recent call last):
      dsirm_jax.io.errors.InputError: gin binding Curriculum.title_rate is 1.5; bind a number of at
      least 0 and below 1
    """
    kind = numbers.Integral if whole else numbers.Real
    is_number = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and least <= value <= most and above < value < below:
        return
    limits = [
        f"{words} {limit:g}"
        for words, limit in (
            ("of at least", least),
            ("of at most", most),
            ("above", above),
            ("below", below),
        )
        if math.isfinite(limit)
    ]
    noun = "a whole number" if whole else "a number"
    legal = " ".join(filter(None, (noun, " and ".join(limits))))
    raise InputError(f"gin binding {binding} is {value!r}; bind {legal}")


def check_text(binding: str, value: Any) -> None:
    """Raises InputError where a setting is no text, or an empty one."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"gin binding {binding} is {value!r}; bind a text that is not empty")


def check_choice(binding: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises InputError where a setting is none of its choices."""
    if value not in choices:
        raise InputError(
            f"gin binding {binding} is {value!r}; bind {', '.join(map(repr, choices[:-1]))} or "
            f"{choices[-1]!r}"
        )
