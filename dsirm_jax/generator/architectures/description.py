"""Architectures as JSON, in the headers of files and in manifests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.kinds import class_name, class_named

CLASS = "class"
UNNAMED = "T5Config"
"""The class of descriptions without `CLASS`, which was once the only one."""


def describe_architecture(config: Architecture) -> dict[str, Any]:
    """Returns the fields of an architecture by name, and, but for `UNNAMED`, its class."""
    name = class_name(config, home=__package__)
    fields = dataclasses.asdict(config)
    return fields if name == UNNAMED else {CLASS: name} | fields


def architecture_from(description: Mapping[str, Any]) -> Architecture:
    """Returns the architecture that `describe_architecture` described, read from JSON.

    Raises:
      InputError: there is no such architecture, or it has other fields.
    """
    name = description.get(CLASS, UNNAMED)
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in description.items()
        if key != CLASS
    }
    kind = class_named(name, home=__package__)
    # Looked at before it is called: the name comes from a file.
    known = {field.name for field in dataclasses.fields(kind)}
    if not {"text_vocab_size", "sid_sizes"} <= known or not hasattr(kind, "decode"):
        raise InputError(f"{name} is no architecture of a generator")
    if not fields.keys() <= known:
        unknown = ", ".join(sorted(fields.keys() - known))
        raise InputError(
            f"{name} has no {unknown} in this version of dsirm; upgrade it to the one that wrote "
            f"the file"
        )
    return kind(**fields)
