"""What a finished run becomes to be served: one folder, and what answers from it."""

from dsirm_jax.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
