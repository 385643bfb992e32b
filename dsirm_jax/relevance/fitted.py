"""A fitted relevance head and its file: what scoring applies."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import jax
from flax import serialization

from dsirm_jax.io.sealed import Artefact, version_of
from dsirm_jax.relevance.calibration import Curve
from dsirm_jax.relevance.model import (
    Blend,
    BlendParams,
    BoostedTrees,
    Head,
    Linear,
    LinearParams,
    Mlp,
    MlpParams,
    Params,
    TreeParams,
)

ARTEFACT = Artefact(kind="relevance head", stage="relevance")
PARAMS = {Mlp: MlpParams, BoostedTrees: TreeParams, Linear: LinearParams}
HEADS = {head.__name__: head for head in PARAMS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedHead:
    """A head of any kind after training.

    Attributes:
      head: its shape.
      features: names of the columns that it reads, in order.
      gains: gain of each grade that the training pairs had, rising.
      relevant: whether each grade counts as relevant.
      params: what it has learnt.
      curve: its calibration.
    """

    head: Head
    features: tuple[str, ...]
    gains: tuple[float, ...]
    relevant: tuple[bool, ...]
    params: Params
    curve: Curve

    @functools.cached_property
    def version(self) -> str:
        """A hash of all that decides a pair's probability."""
        arrays = jax.tree.leaves((self.params, self.curve))
        return version_of(json.dumps(_description(self)), arrays)


def save(path: Path, fitted: FittedHead) -> None:
    """Writes a head as one `safetensors` file, its shape and features in the header."""
    tree = {"params": serialization.to_state_dict(fitted.params), "curve": fitted.curve._asdict()}
    ARTEFACT.save(path, tree, description=_description(fitted), version=fitted.version)


def load(path: Path) -> FittedHead:
    """Reads what `save` wrote.

    Raises:
      InputError: there is no such file, or it holds no head, or not the one it was.
    """
    tree, header = ARTEFACT.load(path)
    head = _head(**header["head"])
    fitted = FittedHead(
        head=head,
        features=tuple(header["features"]),
        gains=tuple(header["gains"]),
        relevant=tuple(header["relevant"]),
        params=_params(head, tree["params"]),
        curve=Curve(**tree["curve"]),
    )
    ARTEFACT.check(path, written=header["version"], read=fitted.version)
    return fitted


def _description(fitted: FittedHead) -> dict:
    return {
        "head": _shape(fitted.head),
        "features": fitted.features,
        "gains": fitted.gains,
        "relevant": fitted.relevant,
    }


def _shape(head: Head) -> dict:
    """Returns a head as JSON, of which `_head` makes it again."""
    shape = {"kind": type(head).__name__}
    if isinstance(head, Blend):
        return shape | {"heads": [_shape(part) for part in head.heads]}
    return shape | dataclasses.asdict(head)


def _head(*, kind: str, **shape) -> Head:
    if kind == Blend.__name__:
        return Blend(heads=tuple(_head(**part) for part in shape["heads"]))
    return HEADS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()})


def _params(head: Head, tree: dict) -> Params:
    if isinstance(head, Blend):
        parts = enumerate(head.heads)
        return BlendParams(
            parts=tuple(_params(part, tree["parts"][str(number)]) for number, part in parts)
        )
    return PARAMS[type(head)](**tree)
