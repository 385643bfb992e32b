"""Checks of texts and choices that gin binds; what is wrong is named with its binding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsirm_jax.io.errors import InputError


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
