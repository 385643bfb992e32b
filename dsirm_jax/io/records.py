"""Frozen dataclasses from JSON: what a file says is held against the fields' annotations."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from dsirm_jax.io.errors import InputError

_Record = TypeVar("_Record")
LATER = types.MappingProxyType({"later": True})
"""Metadata of a field that records of before lack: under its default all is as it was."""
_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def from_json(kind: type[_Record], value: Any, *, name: str) -> _Record:
    """Returns a dataclass of what JSON says: every field of its type, none unknown, none missing.

    Args:
      kind: the dataclass. Its fields are numbers, texts, truth values, other dataclasses,
        `tuple[X, ...]`, `Mapping[str, X]`, `X | None` or `Any`.
      value: what was read.
      name: of the value, which messages begin with; those of fields go on with `.FIELD`.

    Raises:
      InputError: a field is unknown, missing or of another type, or `kind` refuses its value.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Size:
      ...     width: int
      >>> from_json(Size, {"width": 3}, name="box")
      Size(width=3)
      >>> from_json(Size, {"width": "3"}, name="box")
      Traceback (most recent call last):
      dsirm_jax.io.errors.InputError: box.width is '3', which is not a whole number
    """
    return _read(kind, value, name)


def _read(kind: Any, value: Any, name: str) -> Any:
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name)
    if origin in (typing.Union, types.UnionType):
        (other,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _read(other, value, name)
    if origin is tuple:
        parts = _checked(value, list, name, "a list")
        return tuple(_read(arguments[0], part, f"{name}[{i}]") for i, part in enumerate(parts))
    if origin is Mapping:
        parts = _checked(value, dict, name, "an object")
        return {key: _read(arguments[1], part, f"{name}.{key}") for key, part in parts.items()}
    if kind is float and type(value) is int:
        value = float(value)
    value = _checked(value, kind, name, _NAMES[kind])
    if kind is float and not math.isfinite(value):
        raise InputError(f"{name} is {value}, which is not finite")
    return value


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    given = _checked(value, dict, name, "an object")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(given.keys() - fields.keys()):
        raise InputError(f"{name} has {_shown(unknown[0])}, which is no field of it")
    needed = (name for name, field in fields.items() if not _has_default(field))
    if missing := [field for field in needed if field not in given]:
        raise InputError(f"{name} has no {missing[0]}")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _read(hints[key], part, f"{name}.{key}") for key, part in given.items()})


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _checked(value: Any, kind: type, name: str, wanted: str) -> Any:
    """Returns a value of just a type; a truth value is no number."""
    if type(value) is not kind:
        raise InputError(f"{name} is {_shown(value)}, which is not {wanted}")
    return value


def _shown(value: Any) -> str:
    """Returns a value on one short line, whatever a file has put there."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
