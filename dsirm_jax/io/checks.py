"""Checks of what gin binds; what is wrong is named with its binding."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, TypeGuard

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
    if not is_whole(value, least=least):
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


def check_holds(holds: bool, *, binding: str, value: Any, remedy: str) -> None:
    """Checks a condition of its own, which NaN must not meet.

    Args:
      holds: the condition.
      binding: name in gin, such as `BoostedTrees.columns`.
      value: what is bound to it.
      remedy: what to bind instead.

    Raises:
      InputError: it does not hold.
    """
    if not holds:
        raise InputError(f"gin binding {binding} is {value!r}; bind {remedy}")


def check_text(binding: str, value: Any) -> None:
    """Checks that a value is a text with something in it.

    Args:
      binding: name in gin, such as `Tables.items`.
      value: what is bound to it.

    Raises:
      InputError: it is none, or blank.

    Example:
      >>> check_text("Tables.items", "")
      Traceback (most recent call last):
      dsirm_jax.io.errors.InputError: gin binding Tables.items is ''; bind a text that is not empty
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"gin binding {binding} is {value!r}; bind a text that is not empty")


def check_choice(binding: str, value: Any, choices: Sequence[Any]) -> None:
    """Checks that a value is one of some.

    Args:
      binding: name in gin, such as `Esci.version`.
      value: what is bound to it.
      choices: two or more legal values.

    Raises:
      InputError: it is none of them.

    Example:
      >>> check_choice("Esci.version", "tiny", ("small", "large", None))
      Traceback (most recent call last):
      dsirm_jax.io.errors.InputError: gin binding Esci.version is 'tiny'; bind 'small', 'large' or \
None
    """
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        *others, last = map(repr, choices)
        raise InputError(f"gin binding {binding} is {value!r}; bind {', '.join(others)} or {last}")


def is_whole(value: Any, *, least: int) -> TypeGuard[int]:
    """Returns whether a value is a whole number of at least `least`; a truth value is none.

    Example:
      >>> is_whole(2, least=2), is_whole(2.0, least=2), is_whole(True, least=0)
      (True, False, False)
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and int(value) >= least
