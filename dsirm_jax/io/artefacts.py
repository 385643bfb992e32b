"""Fitted models as files: one way to save them, to load them, and to tell one from another."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from dsirm_jax.io import arrays as files
from dsirm_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artefact:
    """What a kind of file is called in messages and in its header.

    Attributes:
      kind: of what is in it, such as `quantizer`.
      stage: the one that writes it.
    """

    kind: str
    stage: str

    def save(
        self,
        path: str | os.PathLike[str],
        tree: Mapping[str, Any],
        *,
        description: Mapping[str, Any],
        version: str,
    ) -> None:
        """Writes a tree of arrays as one `safetensors` file, what it is in the header.

        Args:
          path: where to.
          tree: nested dictionaries of arrays.
          description: JSON values that say what the arrays are.
          version: see `version_of`.
        """
        files.save(
            path,
            traverse_util.flatten_dict(tree, sep="/"),
            kind=self.kind,
            description=dict(description) | {"version": version},
        )

    def load(self, path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads what `save` wrote; `check` has to follow.

        Returns:
          The tree of arrays, and their description with the version that was written.

        Raises:
          InputError: there is no such file, or it is of another kind.
        """
        arrays, description = files.load(
            path,
            kind=self.kind,
            otherwise=(
                f"not a {self.kind}'s file; name the one of a finished `dsirm {self.stage}`"
            ),
        )
        return traverse_util.unflatten_dict(arrays, sep="/"), description

    def check(self, path: str | os.PathLike[str], *, written: str, read: str) -> None:
        """Raises InputError where a file does not hold the model that was written."""
        if written != read:
            raise InputError(
                f"{path}: its contents are not what was written; run `dsirm {self.stage}`"
            )


def version_of(description: str, arrays: Iterable[Any]) -> str:
    """Returns what tells a model from every other: a hash of all that decides what it gives.

    Args:
      description: what beside the arrays decides it.
      arrays: in a fixed order.
    """
    digest = hashlib.sha256(description.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
