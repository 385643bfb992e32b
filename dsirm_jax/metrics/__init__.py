"""Pure metric functions: ranking, classification, codebook health, bootstrap."""

from dsirm_jax.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
