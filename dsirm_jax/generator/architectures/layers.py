"""What the layers of several architectures share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NOT_ATTENDED = -1e10
"""Float32 logit of attention where nothing is to be seen, whatever the type of the computation."""
PRODUCTS, UNROLLED = "products", "unrolled"
"""Values of `remat` and `scan_layers`, beside True and False."""


def rematerialisation(*, remat: bool | str, scan_layers: bool | str) -> dict[str, Any]:
    """Returns the arguments of `jax.checkpoint` for layers of which little is kept.

    Args:
      remat: see `T5Config`; true, or `PRODUCTS`.
      scan_layers: see `T5Config`; a loop keeps XLA from joining the two computations by itself.
    """
    kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return {
        "prevent_cse": scan_layers is not True,
        "policy": kept if remat == PRODUCTS else None,
    }


DOWN, UP = "lora_a", "lora_b"
"""Names, beside a kernel, of the two factors of what is added to it; see `lora.Lora`."""


class KeysValues(NamedTuple):
    """Projected keys and values of one attention layer."""

    keys: Float[Array, "... position head dim"]
    values: Float[Array, "... position head dim"]


@jax.custom_vjp
def linear(x: Float[Array, "... in"], kernel: Float[Array, "in out"]) -> Float[Array, "... out"]:
    """Returns `x @ kernel`, with the kernel's gradient as one product of untransposed operands.

    JAX's own rule asks for its transpose, for which XLA's CPU backend copies the activations
    column by column, on one core: half of a training step.
    """
    return x @ kernel


def _linear_forward(
    x: Float[Array, "... in"], kernel: Float[Array, "in out"]
) -> tuple[Float[Array, "... out"], tuple[Float[Array, "... in"], Float[Array, "in out"]]]:
    return x @ kernel, (x, kernel)


def _linear_backward(
    saved: tuple[Float[Array, "... in"], Float[Array, "in out"]], gradient: Float[Array, "... out"]
) -> tuple[Float[Array, "... in"], Float[Array, "in out"]]:
    x, kernel = saved
    return gradient @ kernel.T, jnp.einsum("...i,...o->io", x, gradient)


linear.defvjp(_linear_forward, _linear_backward)


def low_rank(
    x: Float[Array, "... in"], down: Float[Array, "in rank"], up: Float[Array, "rank out"]
) -> Float[Array, "... out"]:
    """Returns `x @ down @ up`, in the type of `x`."""
    return linear(linear(x, down.astype(x.dtype)), up.astype(x.dtype))
