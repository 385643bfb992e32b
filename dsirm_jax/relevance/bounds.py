"""Checks of what gin binds to the settings of heads and of their calibration."""

from __future__ import annotations

from dsirm_jax.io.errors import InputError


def check_bound(holds: bool, *, binding: str, value: object, wanted: str) -> None:
    """Raises InputError where a setting is out of range, NaN included.

    Args:
      holds: a condition that NaN does not meet.
      binding: such as `BoostedTrees.columns`.
      value: that is bound.
      wanted: what to bind instead.
    """
    if not holds:
        raise InputError(f"gin binding {binding} is {value!r}; bind {wanted}")


def is_whole(value: object, *, least: int) -> bool:
    """Returns whether a setting is a whole number, and not below another."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
