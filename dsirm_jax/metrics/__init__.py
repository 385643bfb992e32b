"""Pure metric functions: ranking, classification, retrieval, belief, codebook health, bootstrap."""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(__name__)
