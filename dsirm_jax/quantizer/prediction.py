"""Linear classifiers of items' attributes, which are learnt along with a quantizer and not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dsirm_jax.quantizer.losses import prediction_loss
from dsirm_jax.quantizer.training_items import TrainingItems

CLASSIFIERS = "attribute_classifiers"
"""Their place among the parameters of a fit."""


def with_classifiers(params: Any, *, items: TrainingItems, levels: int, width: int) -> Any:
    """Returns parameters and, where items have attributes, those of a classifier of each.

    Args:
      params: of a kind's module.
      items: what is fitted to.
      levels: of the quantizer.
      width: of the quantized space.
    """
    if items.attributes is None:
        return params
    sizes = items.attributes.max(axis=0) + 1
    return {**params, CLASSIFIERS: first_classifiers(sizes.tolist(), levels=levels, width=width)}


def without_classifiers(params: Any) -> Any:
    """Returns the parameters that are kept."""
    if CLASSIFIERS not in params:
        return params
    return {name: part for name, part in params.items() if name != CLASSIFIERS}


def first_classifiers(
    sizes: Sequence[int], *, levels: int, width: int
) -> dict[str, dict[str, Float[Array, "..."]]]:
    """Returns the parameters to start from: all classes of an attribute are as likely.

    Args:
      sizes: classes of each attribute.
      levels: of the quantizer.
      width: of the quantized space.
    """
    return {
        str(attribute): {
            "kernel": jnp.zeros((levels, width, max(size, 1))),
            "bias": jnp.zeros((levels, max(size, 1))),
        }
        for attribute, size in enumerate(sizes)
    }


def predicted(
    classifiers: Mapping[str, Mapping[str, Float[Array, "..."]]],
    prefixes: Float[Array, "row level latent"],
    classes: Int[Array, "row attribute"],
    *,
    axis: str,
) -> Float[Array, ""]:
    """Returns this device's share of the mean cross-entropy of the attributes, each on its own.

    Args:
      classifiers: of `first_classifiers`.
      prefixes: prefix vectors of the items of this device, straight through.
      classes: of each attribute of these items, -1 where it is not known.
      axis: mapped axis of the devices that hold the other rows of the batch.

    Returns:
      The sum over attributes of the mean over the items whose attribute is known; the sum of the
      shares over `axis` is that of the whole batch.
    """
    total = jnp.zeros(())
    for name, classifier in classifiers.items():
        number = classes[:, int(name)]
        logits = jnp.einsum("rld,ldc->rlc", prefixes, classifier["kernel"]) + classifier["bias"]
        known = jax.lax.psum(jnp.sum(number >= 0), axis)
        total += jnp.sum(prediction_loss(logits, number)) / jnp.maximum(known, 1)
    return total
