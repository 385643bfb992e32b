"""What a finished run becomes to be served: one folder, and what answers from it."""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(__name__)
