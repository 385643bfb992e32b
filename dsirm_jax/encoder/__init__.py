"""Text to dense vectors: two towers trained on the training pairs."""

from dsirm_jax.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
