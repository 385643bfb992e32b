"""A fitted relevance head and its file: what scoring applies."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
from flax import serialization, traverse_util

from dsirm_jax import arrays as files
from dsirm_jax.errors import InputError
from dsirm_jax.relevance.calibration import Curve
from dsirm_jax.relevance.model import BoostedTrees, Mlp, MlpParams, TreeParams

KIND = "relevance head"
HEADS = {head.__name__: head for head in (Mlp, BoostedTrees)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A head of either kind after training.

    Attributes:
      head: its shape.
      features: names of the columns that it reads, in order.
      gains: gain of each grade that the training pairs had, rising.
      relevant: whether each grade counts as relevant.
      params: what it has learnt.
      curve: its calibration.
    """

    head: Mlp | BoostedTrees
    features: tuple[str, ...]
    gains: tuple[float, ...]
    relevant: tuple[bool, ...]
    params: MlpParams | TreeParams
    curve: Curve

    @functools.cached_property
    def version(self) -> str:
        """A hash of all that decides a pair's probability."""
        digest = hashlib.sha256(json.dumps(_description(self)).encode())
        for array in jax.tree.leaves((self.params, self.curve)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def save(path: Path, fitted: Fitted) -> None:
    """Writes a head as one `safetensors` file, its shape and features in the header."""
    tree = {"params": serialization.to_state_dict(fitted.params), "curve": fitted.curve._asdict()}
    description = _description(fitted) | {"version": fitted.version}
    arrays = traverse_util.flatten_dict(tree, sep="/")
    files.save(path, arrays, kind=KIND, description=description)


def load(path: Path) -> Fitted:
    """Reads what `save` wrote.

    Raises:
      InputError: there is no such file, or it holds no head, or not the one it was.
    """
    arrays, header = files.load(
        path,
        kind=KIND,
        otherwise="not a relevance head's file; name the head.safetensors of a finished "
        "`dsirm relevance`",
    )
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    head = HEADS[header["kind"]]
    shape = {k: tuple(v) if isinstance(v, list) else v for k, v in header["head"].items()}
    fitted = Fitted(
        head=head(**shape),
        features=tuple(header["features"]),
        gains=tuple(header["gains"]),
        relevant=tuple(header["relevant"]),
        params=(MlpParams if head is Mlp else TreeParams)(**tree["params"]),
        curve=Curve(**tree["curve"]),
    )
    if fitted.version != header["version"]:
        raise InputError(f"{path}: its contents are not what was written; run `dsirm relevance`")
    return fitted


def _description(fitted: Fitted) -> dict:
    return {
        "kind": type(fitted.head).__name__,
        "head": dataclasses.asdict(fitted.head),
        "features": fitted.features,
        "gains": fitted.gains,
        "relevant": fitted.relevant,
    }
