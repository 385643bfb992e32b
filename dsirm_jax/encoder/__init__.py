"""Text to dense vectors: two towers trained on the training pairs."""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(__name__)
