"""Dense vectors to semantic identifiers: the query-bridged residual quantizer."""

from dsirm_jax.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
