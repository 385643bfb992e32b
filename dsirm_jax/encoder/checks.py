"""What the settings of encoders have in common: bounds, named as gin binds them."""

from __future__ import annotations

import math
from typing import Any

from dsirm_jax.io.errors import InputError


def check_whole(settings: Any, *names: str, least: int) -> None:
    """Raises InputError unless fields of a dataclass are whole numbers of at least `least`."""
    for name in names:
        value = getattr(settings, name)
        if type(value) is not int or value < least:
            raise _refused(settings, name, f"a whole number of at least {least}")


def check_temperature(settings: Any) -> None:
    """Raises InputError unless the field `temperature` is a finite number above 0."""
    value = settings.temperature
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value > 0):
        raise _refused(settings, "temperature", "a finite number above 0")


def check_path(settings: Any, *names: str) -> None:
    """Raises InputError unless fields of a dataclass are texts that are not empty."""
    for name in names:
        if not (isinstance(getattr(settings, name), str) and getattr(settings, name)):
            raise _refused(settings, name, "a path")


def check_one_of(settings: Any, name: str, values: tuple[Any, ...]) -> None:
    """Raises InputError unless a field of a dataclass is one of some values."""
    if getattr(settings, name) not in values:
        raise _refused(settings, name, " or ".join(map(repr, values)))


def _refused(settings: Any, name: str, wanted: str) -> InputError:
    binding = f"{type(settings).__name__}.{name}"
    return InputError(f"gin binding {binding} is {getattr(settings, name)!r}; bind {wanted}")
